// Hold 35 and 15 MiB by two functions, print what the runtime says of itself, and wait for a line.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
)

var held [][]byte

func init() {
	runtime.MemProfileRate = 1
}

func touched(bytes int) []byte {
	piece := make([]byte, bytes)
	for at := 0; at < bytes; at += 4096 {
		piece[at] = 1
	}
	return piece
}

//go:noinline
func loadRows() {
	for count := 0; count < 35; count++ {
		held = append(held, touched(1<<20))
	}
}

//go:noinline
func parse() {
	for count := 0; count < 15; count++ {
		held = append(held, touched(1<<20))
	}
}

func main() {
	loadRows()
	parse()
	runtime.GC()
	runtime.GC()
	var record [1]runtime.MemProfileRecord
	runtime.MemProfile(record[:], true)
	var is runtime.MemStats
	runtime.ReadMemStats(&is)
	fmt.Println(is.HeapInuse, is.HeapIdle, is.HeapReleased, is.HeapAlloc, is.NextGC, is.NumGC)
	bufio.NewReader(os.Stdin).ReadString('\n')
	runtime.KeepAlive(held)
}
