//! Fills 70 % of its new memory in parse_rows and 30 % in build_index, which is compiled into its caller, both
//! by way of Vec: `parts BYTES`. Prints "ready", waits for a line on its standard input, prints "ready" again,
//! and ends with its input.

use std::io;

const PIECE: usize = 1 << 20;

mod store {
    pub struct Rows {
        pub kept: Vec<Vec<u8>>,
    }

    impl Rows {
        #[inline(never)]
        fn parse_rows(&mut self, bytes: usize) {
            self.kept.push(vec![1u8; bytes]); // 70% here
        }

        #[inline(always)]
        fn build_index(&mut self, bytes: usize) {
            self.kept.push(vec![2u8; bytes]); // 30% here
        }

        #[inline(never)]
        pub fn load(&mut self, bytes: usize) {
            for _ in 0..bytes / (10 * super::PIECE) {
                for _ in 0..7 {
                    self.parse_rows(super::PIECE); // calls for 70%
                }
                for _ in 0..3 {
                    self.build_index(super::PIECE); // calls for 30%
                }
            }
        }
    }
}

fn main() {
    let bytes = std::env::args().nth(1).unwrap().parse().unwrap();
    let mut rows = store::Rows { kept: Vec::with_capacity(1 << 10) };
    let mut line = String::new();
    println!("ready");
    io::stdin().read_line(&mut line).unwrap();
    rows.load(bytes);
    println!("ready");
    io::stdin().read_line(&mut line).unwrap();
}
