package picture

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	v1alpha1 "github.com/kernel-gossip/kernel-gossip/operator/api/v1alpha1"
	"github.com/kernel-gossip/kernel-gossip/operator/store"
)

type source struct {
	birth *v1alpha1.PodBirthCertificate
	all   []store.BirthEntry
	err   error
	asked []string
	wait  chan struct{}
}

func (s *source) Birth(_ context.Context, namespace, pod string) (*v1alpha1.PodBirthCertificate, error) {
	if s.wait != nil {
		<-s.wait
		return s.birth, s.err
	}
	s.asked = append(s.asked, namespace+"/"+pod)
	return s.birth, s.err
}

func (s *source) Births(context.Context) ([]store.BirthEntry, error) { return s.all, s.err }

type auth string

func (a auth) Check(header string) error {
	if header != string(a) {
		return errors.New("no")
	}
	return nil
}

func get(h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if len(header) > 0 {
		r.Header.Set("Authorization", header[0])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPicture(t *testing.T) {
	s := &source{birth: load(t, "sidecars")}
	w := get(Handler(s, Options{}), "/birth/shop/web-0")
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, "image/svg+xml", w.Header().Get("Content-Type"))
	assert.Contains(t, w.Header().Get("Content-Security-Policy"), "default-src 'none'")
	assert.Equal(t, SVG(s.birth), w.Body.Bytes())
	assert.Equal(t, []string{"shop/web-0"}, s.asked)
}

func TestWhatIsNotThere(t *testing.T) {
	s := &source{}
	h := Handler(s, Options{})
	w := get(h, "/birth/shop/web-0")
	assert.Equal(t, http.StatusNotFound, w.Code)
	assert.Contains(t, w.Body.String(), "no birth certificate of pod shop/web-0")
	asked := len(s.asked)
	for _, path := range []string{"/birth/..%2f..%2fetc/passwd", "/birth/shop/..%2fx", "/birth/Shop/web", "/birth/a.b/web", "/birth/shop/%00", "/birth/shop", "/birth/a/b/c"} {
		assert.Equal(t, http.StatusNotFound, get(h, path).Code, path)
	}
	assert.Len(t, s.asked, asked, "a name that is none reaches no store")

	s.err = errors.New("secret words of the store")
	for _, path := range []string{"/birth/shop/web-0", "/birth/"} {
		w = get(h, path)
		assert.Equal(t, http.StatusServiceUnavailable, w.Code)
		assert.NotContains(t, w.Body.String(), "secret")
	}
	r := httptest.NewRecorder()
	h.ServeHTTP(r, httptest.NewRequest(http.MethodPost, "/birth/", nil))
	assert.Equal(t, http.StatusMethodNotAllowed, r.Code)
}

func TestTheTokenIsAskedFor(t *testing.T) {
	s := &source{birth: load(t, "byhand")}
	h := Handler(s, Options{Auth: auth("Bearer x")})
	assert.Equal(t, http.StatusUnauthorized, get(h, "/birth/shop/web-0").Code)
	assert.Equal(t, http.StatusUnauthorized, get(h, "/birth/").Code)
	assert.Empty(t, s.asked)
	assert.Equal(t, http.StatusOK, get(h, "/birth/shop/web-0", "Bearer x").Code)
}

func TestList(t *testing.T) {
	s := &source{}
	h := Handler(s, Options{})
	assert.Contains(t, get(h, "/birth/").Body.String(), "No certificate yet")
	for i := range listed + 1 {
		s.all = append(s.all, store.BirthEntry{Namespace: "shop", Pod: fmt.Sprintf("p%d", i), Created: time.Date(2026, 3, 1, 12, 0, i, 0, time.UTC)})
	}
	s.all[7].Pod = `<script>`
	body := get(h, "/birth/").Body.String()
	assert.Contains(t, body, "The newest 500 of 501")
	assert.NotContains(t, body, `"shop/p0"`)
	assert.NotContains(t, body, "<script>")
	assert.Less(t, strings.Index(body, "shop/p500"), strings.Index(body, "shop/p499"))
}

func TestOnlySomeAreDrawnAtOnce(t *testing.T) {
	s := &source{wait: make(chan struct{}), birth: load(t, "byhand")}
	h := Handler(s, Options{})
	codes := make(chan int, drawnAtOnce+1)
	for range drawnAtOnce + 1 {
		go func() { codes <- get(h, "/birth/shop/web-0").Code }()
	}
	require.Equal(t, http.StatusServiceUnavailable, <-codes, "the one too many, while the others wait")
	close(s.wait)
	for range drawnAtOnce {
		require.Equal(t, http.StatusOK, <-codes)
	}
}
