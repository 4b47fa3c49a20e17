package main
import ("testing";"fmt";"time";"strings";"os";"os/exec")
func TestZZ(t *testing.T){
	e := startExporter(t, "--syscalls.names=getppid,futex")
	var busy []*child
	for i := range 8 {
		g := newGroup(t, fmt.Sprintf("neighbour-%d", i))
		busy = append(busy, g.child("getppid:0"))
	}
	dump := func(){ for k,v := range e.scrape() { if strings.Contains(k,"syscalls_total")&&strings.Contains(k,"neigh")&&strings.Contains(k,"getppid") || strings.Contains(k,"runqueue_wait_seconds_count")|| strings.Contains(k,"map_entries")  { t.Log(k,v) } }
	 for _,b:=range busy { st,_:=os.ReadFile(fmt.Sprintf("/proc/%d/stat",b.cmd.Process.Pid)); f:=strings.Fields(string(st)); t.Log(f[0], "cpu", f[38]) } 
	 o,_:=exec.Command("sh","-c",fmt.Sprintf("for f in /proc/%d/fdinfo/*; do grep -H -E 'recursion_misses|prog_id|run_cnt|prog_type' $f; done",e.cmd.Process.Pid)).CombinedOutput(); t.Log(string(o)) }
	for _, b := range busy { b.begin() }
	time.Sleep(2500*time.Millisecond)
	dump()
}
