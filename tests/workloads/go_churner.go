// Keep 50 MiB, and make 60 MiB of garbage in 2.4 s, 256 KiB at a time; then say so.
package main

import (
	"fmt"
	"runtime"
	"time"
)

var kept [][]byte

func touched(bytes int) []byte {
	piece := make([]byte, bytes)
	for at := 0; at < bytes; at += 4096 {
		piece[at] = 1
	}
	return piece
}

func main() {
	for count := 0; count < 50; count++ {
		kept = append(kept, touched(1<<20))
	}
	runtime.GC() // so that the next one is due at 100 MiB
	for count := 0; count < 240; count++ {
		touched(1 << 18)
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println("kept", len(kept))
}
