// Follows streams with one library, and prints what the library shows to its program: one line of JSON each.
//
//	follow LIBRARY [NAME URL TOKEN]...
//	follow proxy LISTEN UPSTREAM
//
// An empty TOKEN is none. The stream named "bare" is followed without the line that the documentation adds. The
// second form is a reverse proxy of the standard library.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	r3labs "github.com/r3labs/sse/v2"
	tmaxmax "github.com/tmaxmax/go-sse"
)

type stream struct{ name, url, token string }

var printing sync.Mutex

func (s stream) tell(what map[string]any) {
	what["stream"], what["at"] = s.name, time.Now().UnixMilli()
	printing.Lock()
	defer printing.Unlock()
	json.NewEncoder(os.Stdout).Encode(what)
}

func (s stream) event(event, data, id string) {
	s.tell(map[string]any{"event": event, "data": data, "id": id})
}
func (s stream) failed(err error) { s.tell(map[string]any{"error": err.Error()}) }
func (s stream) closed()          { s.tell(map[string]any{"closed": true}) }

func (s stream) open(response *http.Response) {
	coding := response.Header.Get("content-encoding")
	if response.Uncompressed { // the standard library asked for it, and hides it
		coding = "gzip"
	}
	s.tell(map[string]any{"open": coding})
}

func (s stream) bearer() string { return "Bearer " + s.token }

// byR3labs comes back by itself where a connection breaks, and stops for good at a regular end.
func byR3labs(s stream) {
	client := r3labs.NewClient(s.url, r3labs.ClientMaxBufferSize(1<<20))
	if s.token != "" {
		client.Headers["Authorization"] = s.bearer()
	}
	client.ResponseValidator = func(_ *r3labs.Client, response *http.Response) error {
		if response.StatusCode != http.StatusOK {
			response.Body.Close()
			return errors.New(response.Status)
		}
		s.open(response)
		return nil
	}
	client.ReconnectNotify = func(err error, _ time.Duration) { s.failed(err) }
	wait, over := time.Second, false
	for !over { // the line that makes it come back after a regular end
		err := client.SubscribeRaw(func(event *r3labs.Event) {
			s.event(string(event.Event), string(event.Data), string(event.ID))
			if ms, err := strconv.Atoi(string(event.Retry)); err == nil {
				wait = time.Duration(ms) * time.Millisecond
			}
			over = over || string(event.Event) == "end"
		})
		if err != nil {
			s.failed(err)
		}
		if s.name == "bare" {
			break
		}
		if !over {
			time.Sleep(wait)
		}
	}
	s.closed()
}

// byTmaxmax comes back by itself.
func byTmaxmax(s stream) {
	ctx, leave := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		log.Fatal(err)
	}
	if s.token != "" {
		request.Header.Set("Authorization", s.bearer())
	}
	client := tmaxmax.Client{
		OnRetry: func(err error, _ time.Duration) { s.failed(err) },
		ResponseValidator: func(response *http.Response) error {
			s.open(response)
			return tmaxmax.DefaultValidator(response)
		},
	}
	connection := client.NewConnection(request)
	connection.SubscribeToAll(func(event tmaxmax.Event) {
		s.event(event.Type, event.Data, event.LastEventID)
		if event.Type == "end" {
			leave()
		}
	})
	s.failed(connection.Connect())
	s.closed()
}

// byNetHTTP is what a program needs that has the standard library only.
func byNetHTTP(s stream) {
	last, wait := "", time.Second
	for {
		over, err := passOfNetHTTP(s, &last, &wait)
		if err != nil {
			s.failed(err)
		}
		if over || s.name == "bare" {
			s.closed()
			return
		}
		time.Sleep(wait)
	}
}

func passOfNetHTTP(s stream, last *string, wait *time.Duration) (over bool, err error) {
	request, err := http.NewRequest(http.MethodGet, s.url, nil)
	if err != nil {
		return true, err
	}
	request.Header.Set("Accept", "text/event-stream")
	if s.token != "" {
		request.Header.Set("Authorization", s.bearer())
	}
	if *last != "" {
		request.Header.Set("Last-Event-ID", *last)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return response.StatusCode < 500, errors.New(response.Status)
	}
	s.open(response)
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 1<<20)
	fields := map[string]string{}
	for lines.Scan() {
		if line := lines.Text(); line != "" {
			name, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			if data, more := fields["data"]; more && name == "data" {
				value = data + "\n" + value
			}
			fields[name] = value
			continue
		}
		if id, told := fields["id"]; told {
			*last = id
		}
		if ms, err := strconv.Atoi(fields["retry"]); err == nil {
			*wait = time.Duration(ms) * time.Millisecond
		}
		if data, told := fields["data"]; told {
			s.event(fields["event"], data, *last)
		}
		if fields["event"] == "end" {
			return true, nil
		}
		fields = map[string]string{}
	}
	return false, lines.Err()
}

func proxy(listen, upstream string) {
	target, err := url.Parse(upstream)
	if err != nil {
		log.Fatal(err)
	}
	handler := httputil.NewSingleHostReverseProxy(target)
	handler.FlushInterval = -1
	log.Fatal(http.ListenAndServe(listen, handler))
}

func main() {
	library, rest := os.Args[1], os.Args[2:]
	if library == "proxy" {
		proxy(rest[0], rest[1])
	}
	follow := map[string]func(stream){"r3labs": byR3labs, "tmaxmax": byTmaxmax, "net/http": byNetHTTP}[library]
	if follow == nil {
		log.Fatal(fmt.Errorf("no such library: %q", library))
	}
	var following sync.WaitGroup
	for ; len(rest) >= 3; rest = rest[3:] {
		s := stream{rest[0], rest[1], rest[2]}
		following.Add(1)
		go func() { defer following.Done(); follow(s) }()
	}
	following.Wait()
}
