//! Prints the Adler-32 checksum of its standard input.

use std::io::{self, Read};

/// Adler-32, as RFC 1950 defines it.
fn adler32(data: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in data {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    b << 16 | a
}

fn main() -> io::Result<()> {
    let mut data = Vec::new();
    io::stdin().read_to_end(&mut data)?;
    println!("{:08x}", adler32(&data));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::adler32;

    #[test]
    fn known_sums() {
        assert_eq!(adler32(b""), 1);
        assert_eq!(adler32(b"Wikipedia"), 0x11E60398);
    }
}
