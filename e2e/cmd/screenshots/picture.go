package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// shot is one picture of the page.
type shot struct {
	file, path, scheme string
	width, height      int64
}

func shoot(ctx context.Context, url, dir string) error {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-dev-shm-usage", true))
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	defer stop()
	ctx, stopTab := chromedp.NewContext(ctx)
	defer stopTab()
	for _, s := range []shot{
		{"page.png", "/", "light", 1120, 480},
		{"page-phone.png", "/", "dark", 390, 800},
		{"evidence.png", "/container?container=%2Fshop-checkout", "light", 900, 1000},
	} {
		raw, err := s.take(ctx, url)
		if err != nil {
			return fmt.Errorf("taking %s: %w", s.file, err)
		}
		small, err := optimise(raw)
		if err != nil {
			return fmt.Errorf("making %s smaller: %w", s.file, err)
		}
		if err := os.WriteFile(filepath.Join(dir, s.file), small, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s shot) take(ctx context.Context, url string) ([]byte, error) {
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: s.scheme}},
	}); err != nil {
		return nil, err
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(s.width, s.height, chromedp.EmulateScale(1.5)), chromedp.Navigate(url+s.path)); err != nil {
		return nil, err
	}
	for {
		live, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.getElementById("state")?.className === "live"`))
		if err != nil {
			return nil, err
		}
		if live {
			break
		}
		time.Sleep(100 * time.Millisecond) // Evaluate fails once ctx ends
	}
	shot, err := chromedp.Call(ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{})
	if err != nil {
		return nil, err
	}
	return shot.Data, nil
}

// optimise keeps the 256 most frequent colours, which for a page of text is nearly
// all of them, and gives the others their nearest.
func optimise(raw []byte) ([]byte, error) {
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	count := map[color.RGBA]int{}
	box := img.Bounds()
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(img.At(x, y)).(color.RGBA) }
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	colours := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return cmp.Compare(count[b], count[a]) })
	var palette color.Palette
	for _, c := range colours[:min(256, len(colours))] {
		palette = append(palette, c)
	}
	index := map[color.RGBA]uint8{}
	for _, c := range colours {
		index[c] = uint8(palette.Index(c))
	}
	out := image.NewPaletted(box, palette)
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			out.SetColorIndex(x, y, index[at(x, y)])
		}
	}
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&b, out); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// terminal draws text as a terminal shows it.
func terminal(command, text string) []byte {
	const charWidth, lineHeight, margin, columnsAtMost = 7.83, 18, 14, 100
	lines := []string{"$ " + command}
	for line := range strings.SplitSeq(text, "\n") {
		runes := []rune(line)
		for len(runes) > columnsAtMost { // as a terminal of that width does
			lines = append(lines, string(runes[:columnsAtMost]))
			runes = runes[columnsAtMost:]
		}
		lines = append(lines, string(runes))
	}
	var columns int
	for _, l := range lines {
		columns = max(columns, len([]rune(l)))
	}
	width, height := int(float64(columns)*charWidth)+2*margin, len(lines)*lineHeight+2*margin
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="13" role="img" aria-label="what %s shows">`+"\n", width, height, width, command)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="6" fill="#14171b"/>`+"\n", width, height)
	for i, l := range lines {
		fill := "#e6e9ed"
		if i == 0 {
			fill = "#9aa4b1"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s" xml:space="preserve">`, margin, margin+(i+1)*lineHeight-5, fill)
		_ = xml.EscapeText(&b, []byte(l)) // a buffer takes everything
		b.WriteString("</text>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
