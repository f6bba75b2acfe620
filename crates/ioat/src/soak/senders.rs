//! Who sends: a thread for each connection.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddrV4},
};

use sockets::{Stack, TcpStream};

use super::{
    control::{Control, Course},
    incoming::{HEADER_LEN, Header},
    random::Random,
};
use crate::lab::Pattern;

/// The logarithm of the longest stream's length.
const LONGEST_STREAM_BITS: usize = 23;
/// Of the longest write's.
const LONGEST_WRITE_BITS: usize = 17;

/// Sends one stream after the other to `peer`, until the last.
pub(super) fn send(
    stack: &Stack,
    peer: SocketAddrV4,
    control: &Control,
    mut random: Random,
) -> io::Result<()> {
    let mut piece = vec![0; HEADER_LEN + (1 << LONGEST_WRITE_BITS)];
    loop {
        let mut stream = TcpStream::connect(stack, peer)?;
        let course = control.course();
        let len = random.length(LONGEST_STREAM_BITS);
        let header = Header { seed: random.next(), len: len as u64, course };
        let pattern = Pattern::new(header.seed);
        piece[..HEADER_LEN].copy_from_slice(&header.to_bytes());
        // The header is part of the first write.
        let mut ahead = HEADER_LEN;
        let mut sent = 0;
        while sent < len {
            let next = random.length(LONGEST_WRITE_BITS).min(len - sent);
            pattern.fill(sent as u64, &mut piece[ahead..ahead + next]);
            stream.write_all(&piece[..ahead + next])?;
            (ahead, sent) = (0, sent + next);
        }
        if course != Course::Free {
            control.hold();
        }
        stream.shutdown(Shutdown::Write)?;
        // Until the other end is through.
        if stream.read(&mut [0])? != 0 {
            return Err(io::Error::other("the reader sent something"));
        }
        if course == Course::Last {
            return Ok(());
        }
    }
}
