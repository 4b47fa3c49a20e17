package page

import (
	"fmt"
	"math"
	"strings"
)

// The size of a drawing's own coordinates; style sheets give it its size on a screen.
const (
	chartWidth  = 240.0
	chartHeight = 56.0
)

// chart is a drawing of a trail, as the paths of an SVG. Empty paths are "not measured".
type chart struct {
	Used      string  // line of cores used
	Area      string  // and what is below it
	Reported  string  // line of cores reported
	Throttled string  // a bar a second, as high as the share of throttled periods
	Limit     string  // y of the limit; empty without one
	Top       float64 // cores at the top edge
	Seconds   int     // that it spans
	Peak      *float64
	Label     string // for who can't see it
}

// draw puts the newest second at the right edge. limit may be nil.
func draw(points []point, limit *float64) chart {
	c := chart{Seconds: len(points)}
	if limit != nil {
		c.Top = *limit
	}
	var stopped int
	for _, p := range points {
		c.Top = max(c.Top, or0(p.used), or0(p.reported))
		if !math.IsNaN(p.used) && (c.Peak == nil || p.used > *c.Peak) {
			c.Peak = &p.used
		}
		if p.throttled > 0 {
			stopped++
		}
	}
	if c.Top <= 0 {
		c.Top = 0.01 // an idle container's line lies at the bottom
	}
	c.Top *= 1.08
	y := func(cores float64) float64 { return chartHeight * (1 - cores/c.Top) }
	step := chartWidth / trailLength
	x := func(i int) float64 { return chartWidth - step*float64(len(points)-i) + step/2 }

	c.Used, c.Area = line(points, x, func(p point) float64 { return y(p.used) }, func(p point) bool { return !math.IsNaN(p.used) })
	c.Reported, _ = line(points, x, func(p point) float64 { return y(p.reported) }, func(p point) bool { return !math.IsNaN(p.reported) })
	var bars strings.Builder
	for i, p := range points {
		if p.throttled > 0 {
			fmt.Fprintf(&bars, "M%.1f %.0fV%.1fH%.1fV%.0fZ", x(i)-step/2, chartHeight, chartHeight*(1-min(1, p.throttled)), x(i)+step/2, chartHeight)
		}
	}
	c.Throttled = bars.String()
	if limit != nil {
		c.Limit = fmt.Sprintf("%.1f", y(*limit))
	}
	c.Label = "no CPU use measured yet"
	if c.Peak != nil {
		c.Label = fmt.Sprintf("last %d seconds: at most %.2f cores used, throttled in %d seconds", len(points), *c.Peak, stopped)
	}
	return c
}

// line connects the measured points and breaks where one is missing; area is closed
// down to the bottom edge.
func line(points []point, x func(int) float64, y func(point) float64, measured func(point) bool) (path, area string) {
	var l, a strings.Builder
	open := -1
	end := func(i int) {
		if open >= 0 {
			fmt.Fprintf(&a, "L%.1f %.1fL%.1f %.1fZ", x(i-1), chartHeight, x(open), chartHeight)
		}
		open = -1
	}
	for i, p := range points {
		if !measured(p) {
			end(i)
			continue
		}
		verb := 'L'
		if open < 0 {
			verb, open = 'M', i
		}
		fmt.Fprintf(&l, "%c%.1f %.1f", verb, x(i), y(p))
		fmt.Fprintf(&a, "%c%.1f %.1f", verb, x(i), y(p))
	}
	end(len(points))
	return l.String(), a.String()
}

func or0(f float64) float64 {
	if math.IsNaN(f) {
		return 0
	}
	return f
}
