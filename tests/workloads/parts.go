// Fill 70 % of the new memory in parseRows and 30 % in buildIndex, which is compiled into its caller:
// `parts BYTES`. Print "ready", wait for a line on the standard input, print "ready" again, and end with it.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
)

const piece = 1 << 20

type rows struct {
	kept [][]byte
}

//go:noinline
func (all *rows) parseRows(bytes int) {
	row := make([]byte, bytes)
	for at := range row {
		row[at] = 1 // 70% here
	}
	all.kept = append(all.kept, row)
}

func fill(row []byte) {
	for at := range row {
		row[at] = 2 // 30% here
	}
}

//go:noinline
func (all *rows) load(bytes int) {
	for ; bytes >= 10*piece; bytes -= 10 * piece {
		for one := 0; one < 7; one++ {
			all.parseRows(piece) // calls for 70%
		}
		for one := 0; one < 3; one++ {
			row := make([]byte, piece)
			fill(row) // calls for 30%
			all.kept = append(all.kept, row)
		}
	}
}

func main() {
	debug.SetGCPercent(-1)
	bytes, _ := strconv.Atoi(os.Args[1])
	all := rows{}
	given := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	given.ReadString('\n')
	all.load(bytes)
	fmt.Println("ready")
	given.ReadString('\n')
}
