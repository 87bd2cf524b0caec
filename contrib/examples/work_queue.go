// Work queue on ipcfs: go run work_queue.go produce NAME N | consume NAME. See README.md.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func open(directory, name string) *os.File {
	mount := os.Getenv("IPCFS_MOUNT")
	if mount == "" {
		mount = "/mnt/ipc"
	}
	f, err := os.OpenFile(filepath.Join(mount, directory, name), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		log.Fatal(err)
	}
	return f
}

// read is one operation: it receives from a queue, waits on a semaphore, reads the counter.
//
// It seeks and calls Read because Go opens what can be polled in nonblocking mode: Read parks the goroutine until there
// is something, ReadAt returns EAGAIN. The same holds for Write and WriteAt.
func read(f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	n, err := f.Read(buf)
	if err != nil && err != io.EOF {
		return "", err
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

func produce(jobs *os.File, n int) error {
	for job := 1; job <= n; job++ {
		if _, err := fmt.Fprint(jobs, job); err != nil {
			return err
		}
	}
	_, err := jobs.WriteString("end")
	return err
}

func consume(jobs, lock, counter *os.File) error {
	for {
		message, err := read(jobs)
		if err != nil || message == "end" {
			return err
		}
		job, err := strconv.Atoi(message)
		if err != nil {
			return err
		}
		total, err := add(lock, counter, job)
		if err != nil {
			return err
		}
		fmt.Printf("go: job %d, counter %d\n", job, total)
	}
}

func add(lock, counter *os.File, job int) (total int, err error) {
	if _, err := read(lock); err != nil { // wait
		return 0, err
	}
	defer lock.WriteString("\n") // post

	text, err := read(counter)
	if err != nil {
		return 0, err
	}
	if text != "" { // a new segment is empty
		if total, err = strconv.Atoi(text); err != nil {
			return 0, err
		}
	}
	total += job
	_, err = counter.WriteAt([]byte(fmt.Sprintf("%11d\n", total)), 0)
	return total, err
}

func main() {
	log.SetFlags(0)
	args := os.Args[1:]
	producing := len(args) == 3 && args[0] == "produce"
	if !producing && !(len(args) == 2 && args[0] == "consume") {
		fmt.Fprintln(os.Stderr, "usage: work_queue produce NAME N | consume NAME")
		os.Exit(2)
	}
	jobs := open("mq@max_messages=10,max_message_size=64", args[1])
	lock := open("sem@value=1", args[1])
	counter := open("shm", args[1])

	var err error
	if producing {
		var n int
		if n, err = strconv.Atoi(args[2]); err == nil {
			err = produce(jobs, n)
		}
	} else {
		err = consume(jobs, lock, counter)
	}
	if err != nil {
		log.Fatal(err)
	}
}
