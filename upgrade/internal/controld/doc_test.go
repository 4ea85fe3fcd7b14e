package controld_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// The package comments are the documentation of the API: they have all routes, no
// others, and the status of each error as it is.
func TestDocumentation(t *testing.T) {
	api, err := os.ReadFile("../../control/doc.go")
	require.NoError(t, err)
	var routes []string
	for _, m := range regexp.MustCompile(`(?m)^//\t(GET|POST) +(/v1/\w+) `).FindAllStringSubmatch(string(api), -1) {
		routes = append(routes, m[1]+" "+m[2])
	}
	srv := controld.New(controld.Config{Backend: new(backend)})
	assert.ElementsMatch(t, srv.Routes(), routes)

	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	table := regexp.MustCompile(`(?m)^//\t(\d{3}|   )  ([a-z_0-9, ]+)$`).FindAllStringSubmatch(string(doc), -1)
	require.Len(t, table, 12)
	status := 0
	for _, row := range table {
		if n, err := strconv.Atoi(row[1]); err == nil {
			status = n
		}
		for code := range strings.SplitSeq(strings.TrimSuffix(row[2], ","), ", ") {
			assert.Equal(t, status, controld.StatusOf(code), code)
		}
	}
}
