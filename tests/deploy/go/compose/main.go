// Compose prints what `docker compose config` would: files read, checked against the schema and interpolated by compose-go,
// the library that docker compose itself uses. All profiles are on.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	text, err := config(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Print(string(text))
}

func config(files []string) ([]byte, error) {
	options, err := cli.NewProjectOptions(files, cli.WithName("spanbridge"), cli.WithProfiles([]string{"*"}))
	if err != nil {
		return nil, err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	return project.MarshalYAML()
}
