package main
import ("testing";"fmt";"time";"strings")
func TestZZ(t *testing.T){
	e := startExporter(t, "--syscalls.names=getppid,futex")
	var groups []*group
	var busy []*child
	for i := range 8 {
		g := newGroup(t, fmt.Sprintf("neighbour-%d", i))
		groups = append(groups, g)
		busy = append(busy, g.child("getppid:0"))
	}
	dump := func(){ for k,v := range e.scrape() { if strings.Contains(k,"getppid")&&strings.Contains(k,"syscalls_total") || strings.Contains(k,"exporter_cgroups")|| strings.Contains(k,"unowned")|| strings.Contains(k,"map_entries") { t.Log(k,v) } } }
	for _, b := range busy { b.begin() }
	time.Sleep(1500*time.Millisecond)
	dump()
	time.Sleep(3*time.Second)
	dump()
}
