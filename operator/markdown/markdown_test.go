package markdown

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFlags(t *testing.T) {
	app := kingpin.New("app", "")
	app.Flag("size", "Bytes, a|b or <none>.").Default("12").Int()
	app.Flag("home", "Where.").Envar("APP_HOME").Default("/srv").String()
	app.Flag("secret", "Nobody's business.").Hidden().Bool()
	app.Command("top", "").Flag("once", "Leave\nat once.").Bool()
	app.Command("inner", "").Hidden().Flag("deep", "").Bool()
	assert.Equal(t, "| flag | default | what it does |\n|---|---|---|\n"+
		"| `--size` | `12` | Bytes, a\\|b or &lt;none>. |\n"+
		"| `--home` | `$APP_HOME`, else `/srv` | Where. |\n"+
		"| `top --once` | – | Leave at once. |\n", Flags(app.Model()))
}

func TestUpdate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	require.NoError(t, os.WriteFile(path, []byte("a\n<!-- flags -->\nold\n<!-- /flags -->\nz\n"), 0o644))
	require.NoError(t, Update(path, "flags", "new\n"))
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "a\n<!-- flags -->\nnew\n<!-- /flags -->\nz\n", string(b))
	section, err := Section(string(b), "flags")
	require.NoError(t, err)
	assert.Equal(t, "new\n", section)
	assert.ErrorContains(t, Update(path, "metrics", ""), `no section between "<!-- metrics -->" and "<!-- /metrics -->"`)
}
