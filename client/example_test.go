package client_test

import (
	"context"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/volcano-sh/agentcube/client"
)

// Run a program on a file, and delete the session whatever happens.
func Example() {
	run := func(ctx context.Context, token string) (err error) {
		c, err := client.New(client.Config{LocalToken: token})
		if err != nil {
			return err
		}
		defer c.Close()
		s, err := c.CreateSession(ctx, client.CreateOptions{TTL: 10 * time.Minute})
		if err != nil {
			return err
		}
		defer func() {
			// The session is deleted also when ctx has ended.
			if derr := s.Delete(context.WithoutCancel(ctx)); err == nil {
				err = derr
			}
		}()

		data := "a,b\n1,2\n"
		if _, err := s.Upload(ctx, "data.csv", strings.NewReader(data),
			client.UploadOptions{Size: int64(len(data))}); err != nil {
			return err
		}
		res, err := s.Execute(ctx, client.ExecRequest{
			Command: []string{"python3", "-c", "print(open('data.csv').read())"},
			Timeout: 10 * time.Second,
		})
		if err != nil {
			return err
		}
		fmt.Printf("exit code %d: %s", res.ExitCode, res.Stdout)
		return nil
	}
	if err := run(context.Background(), "token of ~/.config/agentcube/token"); err != nil {
		log.Fatal(err)
	}
}
