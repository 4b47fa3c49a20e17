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
	"regexp"
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

// drawn draws a screen as a terminal of dark colours shows it, with the styles that
// top uses: bold, faint, inverse and red of ECMA-48's SGR.
func drawn(command, screen string) []byte {
	const (
		charWidth, lineHeight, margin = 7.83, 18, 14
		paper, ink, dim, red          = "#14171b", "#e6e9ed", "#9aa4b1", "#ff8a73"
	)
	sgr := regexp.MustCompile("\x1b\\[([0-9;]*)([A-Za-z])")
	lines := append([]string{"\x1b[2m$ " + command + "\x1b[0m"}, strings.Split(strings.ReplaceAll(screen, "\r", ""), "\n")...)
	var columns int
	for _, l := range lines {
		columns = max(columns, len([]rune(sgr.ReplaceAllString(l, ""))))
	}
	width, height := int(float64(columns)*charWidth)+2*margin, len(lines)*lineHeight+2*margin
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" font-family="ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace" font-size="13" role="img" aria-label="what %s shows">`+"\n", width, height, width, command)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" rx="6" fill="%s"/>`+"\n", width, height, paper)
	for i, l := range lines {
		y, column, style := margin+(i+1)*lineHeight-5, 0, ""
		for l != "" {
			text, next := l, len(l)
			at := sgr.FindStringSubmatchIndex(l)
			if at != nil {
				text, next = l[:at[0]], at[1]
			}
			if n := len([]rune(text)); n > 0 {
				x, fill, weight := margin+float64(column)*charWidth, ink, ""
				switch style {
				case "2":
					fill = dim
				case "1;31":
					fill, weight = red, ` font-weight="bold"`
				case "1":
					weight = ` font-weight="bold"`
				case "7":
					fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", x, y-13, float64(n)*charWidth, lineHeight, ink)
					fill = paper
				}
				if strings.TrimSpace(text) != "" {
					// The length keeps columns in line, whatever the viewer's font.
					fmt.Fprintf(&b, `<text x="%.1f" y="%d" textLength="%.1f" fill="%s"%s xml:space="preserve">`, x, y, float64(n)*charWidth, fill, weight)
					_ = xml.EscapeText(&b, []byte(text)) // a buffer takes everything
					b.WriteString("</text>\n")
				}
				column += n
			}
			if at != nil && l[at[4]:at[5]] == "m" {
				style = strings.TrimPrefix(l[at[2]:at[3]], "0")
			}
			l = l[next:]
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
