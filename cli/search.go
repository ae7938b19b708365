// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sbx/fetch"
)

func searchCommand() command {
	return command{
		name: "search", summary: "Search Docker Hub for images", usage: "[OPTIONS] TERM", min: 0, max: 1,
		bind: func() ([]option, action) {
			o := &searchOptions{limit: 25}
			return o.flags(), o.run
		},
	}
}

type searchOptions struct {
	filter  filters
	format  string
	limit   int
	noTrunc bool
	bases   bool
}

func (o *searchOptions) flags() []option {
	return []option{
		switchFlag(&o.bases, "bases", "", "List the distributions whose root filesystems need no registry"),
		filterFlag(&o.filter),
		textFlag(&o.format, "format", "", formatUsage),
		numberFlag(&o.limit, "limit", "", "Max number of search results (default 25)"),
		switchFlag(&o.noTrunc, "no-trunc", "", "Don't truncate output"),
	}
}

// searchRow is a repository as templates see it.
type searchRow struct {
	Description string
	IsAutomated string
	IsOfficial  string
	Name        string
	StarCount   string
}

const searchTable = `{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}`

func (o *searchOptions) run(ctx context.Context, c *client, operands []string) error {
	if o.bases {
		return o.listBases(c, operands)
	}
	if len(operands) == 0 {
		return &usageError{text: `"sbx search" requires 1 argument`, path: "sbx search"}
	}
	if err := o.filter.check("is-automated", "is-official", "stars"); err != nil {
		return err
	}
	if o.limit < 1 || o.limit > 100 {
		return &usageError{text: fmt.Sprintf("limit %d is outside the range of [1, 100]", o.limit)}
	}
	host, term := hub, operands[0]
	if namesRegistry(term) {
		host, term, _ = strings.Cut(term, "/")
	}
	options, err := c.fetchOptions(ocispec.Platform{})
	if err != nil {
		return err
	}
	var found []fetch.SearchResult
	err = interruptible(ctx, func(ctx context.Context) error {
		found, err = fetch.Search(ctx, host, term, o.limit, options)
		return err
	})
	if err != nil {
		return err
	}
	rows, err := o.rows(found[:min(len(found), o.limit)])
	if err != nil {
		return err
	}
	header := searchRow{Description: "DESCRIPTION", IsAutomated: "AUTOMATED", IsOfficial: "OFFICIAL", Name: "NAME", StarCount: "STARS"}
	text, err := formatRows(o.format, searchTable, header, rows)
	c.document(text)
	return err
}

func (o *searchOptions) rows(found []fetch.SearchResult) ([]searchRow, error) {
	least := 0
	if stars := o.filter["stars"]; len(stars) > 0 {
		var err error
		if least, err = strconv.Atoi(stars[len(stars)-1]); err != nil {
			return nil, &usageError{text: fmt.Sprintf("invalid filter 'stars=%s'", stars[len(stars)-1]), hint: "want a number"}
		}
	}
	official, officialGiven, err := o.filter.wantsTrue("is-official")
	if err != nil {
		return nil, err
	}
	automated, automatedGiven, err := o.filter.wantsTrue("is-automated")
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(slices.Clone(found), func(r fetch.SearchResult) bool {
		return r.Stars < least || officialGiven && r.Official != official || automatedGiven && r.Automated != automated
	})
	mark := func(b bool) string {
		if b {
			return "[OK]"
		}
		return ""
	}
	var rows []searchRow
	for _, r := range found {
		description := strings.Join(strings.Fields(r.Description), " ")
		if !o.noTrunc {
			description = ellipsis(description, 45)
		}
		rows = append(rows, searchRow{description, mark(r.Automated), mark(r.Official), printable(r.Name), strconv.Itoa(r.Stars)})
	}
	return rows, nil
}
