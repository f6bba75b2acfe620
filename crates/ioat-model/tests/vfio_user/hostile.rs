//! Clients that mean harm. Whatever one does, the next is served.

use std::{
    io::{Read, Write},
    os::fd::AsFd,
    time::Duration,
};

use ioat_model::registers::CHANCNT;
use proptest::prelude::*;
use rustix::io::Errno;

use crate::{bytes, client::*, served::Served};

/// The next client finds a device.
fn serves(served: &Served) {
    let mut client = served.client();
    assert_eq!(client.read(BAR, CHANCNT, 1), Ok(vec![1]));
    drop(client);
    served.wait_for_end();
}

#[test]
fn a_size_that_makes_no_sense_ends_the_connection() {
    let served = Served::simple();
    for size in [0_u32, 1, 15, (64 << 10) + 1, 1 << 31, u32::MAX] {
        let client = served.client();
        client.send(&bytes![1_u16, REGION_READ, size, 0_u32, 0_u32], &[]);
        assert!(client.is_closed(), "{size}");
        let (_, reason) = served.wait_for_end();
        assert!(reason.contains(&size.to_string()), "{reason}");
    }
    serves(&served);
}

#[test]
fn a_message_that_is_no_command_ends_the_connection() {
    let served = Served::simple();
    for kind in 1_u32..16 {
        let client = served.client();
        client.send(&bytes![1_u16, REGION_READ, 16_u32, kind, 0_u32], &[]);
        assert!(client.is_closed(), "{kind}");
        served.wait_for_end();
    }
    serves(&served);
}

#[test]
fn a_client_may_go_in_the_middle_of_any_message() {
    let served = Served::simple();
    let guest = Guest::new(4);
    let bodies = [
        (REGION_WRITE, bytes![0_u64, BAR, 8_u32, 0_u64]),
        (DMA_MAP, bytes![32_u32, READ, 0_u64, 0_u64, 4096_u64]),
    ];
    for (command, body) in bodies {
        for sent in 0..16 + body.len() {
            let mut client = served.client();
            let message = client.message(command, 0, &body);
            if sent > 0 {
                client.send(&message[..sent], &[guest.fd()]);
            }
            drop(client);
            let (_, reason) = served.wait_for_end();
            assert_eq!(reason.contains("middle"), sent > 0, "{sent}: {reason}");
        }
    }
    serves(&served);
}

#[test]
fn bodies_that_are_too_short_are_refused_and_the_next_message_is_understood() {
    let served = Served::simple();
    let mut client = served.client();
    let needs = [
        (VERSION, 4),
        (DMA_MAP, 32),
        (DMA_UNMAP, 24),
        (DEVICE_GET_REGION_INFO, 12),
        (DEVICE_GET_IRQ_INFO, 12),
        (DEVICE_SET_IRQS, 20),
        (REGION_READ, 16),
        (REGION_WRITE, 16),
    ];
    for (command, needed) in needs {
        for len in 0..needed {
            let refused = client.request(command, &vec![0; len]);
            assert_eq!(refused, Err(Errno::INVAL.raw_os_error()), "{command} {len}");
        }
        assert_eq!(client.read(BAR, CHANCNT, 1), Ok(vec![1]));
    }
    // Commands that the server does not have, and numbers that are none.
    for command in [0, 6, 11, 12, 14, 15, 99, u16::MAX] {
        for len in [0, 100] {
            let refused = client.request(command, &vec![0xff; len]);
            assert_eq!(refused, Err(Errno::NOSYS.raw_os_error()), "{command}");
        }
    }
    assert_eq!(client.read(BAR, CHANCNT, 1), Ok(vec![1]));
}

#[test]
fn lies_about_the_length_of_data_are_refused() {
    let served = Served::simple();
    let mut client = served.client();
    for (count, data) in [(0_u32, 1), (1, 0), (8, 4), (4, 8), (1 << 20, 4), (u32::MAX, 8)] {
        let mut body = bytes![0_u64, BAR, count];
        body.extend(vec![0; data]);
        assert!(client.request(REGION_WRITE, &body).is_err(), "{count} {data}");
    }
    for count in [(16 << 10) + 1, 1 << 20, u32::MAX] {
        assert!(client.request(REGION_READ, &bytes![0_u64, CONFIG, count]).is_err(), "{count}");
    }
    let irqs = bytes![20_u32, 0x22_u32, 2_u32, 0_u32, u32::MAX];
    assert!(client.request(DEVICE_SET_IRQS, &irqs).is_err());
    assert_eq!(client.read(BAR, CHANCNT, 1), Ok(vec![1]));
}

#[test]
fn files_that_nobody_asked_for_are_closed() {
    let served = Served::simple();
    let mut client = served.client();
    // The reader sees its end when no writer is left: here, and wherever it was sent.
    let sent = |client: &mut Client, command, body: &[u8], count: usize, late: bool| {
        let (reader, writer) = pipe();
        let message = client.message(command, 0, body);
        let files = vec![writer.as_fd(); count];
        if late {
            // With the body, which is read without files.
            client.send(&message[..16], &[]);
            client.send(&message[16..], &files);
        } else {
            client.send(&message, &files);
        }
        let (_, _, outcome) = client.reply();
        drop(writer);
        let mut end = [0];
        let count = std::fs::File::from(reader).read(&mut end).expect("a pipe");
        assert_eq!(count, 0, "all writers are gone");
        outcome
    };
    let read = bytes![CHANCNT, BAR, 1_u32];
    assert!(sent(&mut client, REGION_READ, &read, 1, false).is_err());
    assert!(sent(&mut client, REGION_READ, &read, 16, false).is_err());
    // More than the server takes.
    assert!(sent(&mut client, REGION_READ, &read, 60, false).is_err());
    assert!(sent(&mut client, DMA_MAP, &[0; 32], 60, false).is_err());
    assert!(sent(&mut client, 0xffff, &[], 3, false).is_err());
    assert!(sent(&mut client, REGION_READ, &read, 3, true).is_ok());
}

#[test]
fn a_client_that_takes_no_replies_holds_nobody_up() {
    let served = Served::simple();
    let mut client = served.client();
    client.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a valid time");
    let message = client.message(REGION_READ, 0, &bytes![0_u64, CONFIG, 4096_u32]);
    // Until the server, which cannot get rid of its replies, takes no more.
    while client.stream.write(&message).is_ok() {}
    drop(client);
    served.wait_for_end();
    serves(&served);
}

#[test]
fn a_client_that_stops_in_the_middle_is_given_up() {
    let served = Served::simple();
    let mut silent = served.client();
    let message = silent.message(REGION_READ, 0, &bytes![CHANCNT, BAR, 1_u32]);
    silent.send(&message[..20], &[]);
    let (_, reason) = served.wait_for_end();
    assert!(reason.contains("unfinished"), "{reason}");
    serves(&served);
}

/// A piece of a hostile conversation.
fn message() -> impl Strategy<Value = (u16, u32, Vec<u8>, bool)> {
    let word = prop_oneof![
        Just(0_u32),
        Just(1),
        Just(4096),
        Just(0x1000_0000),
        Just(u32::MAX),
        any::<u32>(),
        0_u32..64,
    ];
    let body = proptest::collection::vec(word, 0..12)
        .prop_map(|words| words.iter().flat_map(|word| word.to_le_bytes()).collect());
    (0_u16..17, prop_oneof![Just(0_u32), Just(NO_REPLY)], body, any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_conversation_leaves_a_server(messages in proptest::collection::vec(message(), 1..60)) {
        let served = Served::simple();
        let guest = Guest::new(2);
        let mut client = served.client();
        for (command, flags, body, with_file) in messages {
            let message = client.message(command, flags, &body);
            let files = [guest.fd()];
            client.send(&message, if with_file { &files } else { &[] });
            if flags == 0 {
                let (_, replied, _) = client.reply();
                prop_assert_eq!(replied, command);
            }
        }
        drop(client);
        served.wait_for_end();
        serves(&served);
    }

    #[test]
    fn any_bytes_leave_a_server(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let served = Served::simple();
        let client = served.client();
        // It may be closed by what came first.
        let _ = (&client.stream).write_all(&bytes);
        drop(client);
        served.wait_for_end();
        serves(&served);
    }
}
