//! What the server says about the device, and how it answers.

use std::os::unix::net::UnixListener;

use ioat_model::{
    Config, Version,
    registers::{BAR_SIZE, CBVER, CHANCNT, INTRCTRL},
    vfio_user::{BindError, Server},
};
use rustix::io::Errno;

use crate::{
    bytes,
    client::*,
    served::{Served, socket_path},
};

const INVALID: Result<Vec<u8>, Refused> = Err(Errno::INVAL.raw_os_error());

#[test]
fn the_version_comes_first_and_once() {
    let served = Served::simple();
    let mut client = served.connect();
    assert_eq!(client.request(DEVICE_GET_INFO, &[0; 16]), Err(Errno::PROTO.raw_os_error()));
    let major = client.request(VERSION, &bytes![1_u16, 0_u16]);
    assert_eq!(major, Err(Errno::PROTONOSUPPORT.raw_os_error()));
    // A greater minor number is no obstacle, and what is agreed is not greater than ours.
    let reply = client.request(VERSION, &bytes![0_u16, 9_u16]).expect("0.9 includes 0.1");
    assert_eq!(reply[..4], bytes![0_u16, 1_u16]);
    let json = std::str::from_utf8(&reply[4..]).expect("text");
    assert!(json.starts_with("{\"capabilities\":{") && json.ends_with("}}\0"), "{json}");
    assert!(json.contains("\"max_msg_fds\":16") && json.contains("\"pgsizes\":4096"), "{json}");
    assert!(client.request(VERSION, &bytes![0_u16, 1_u16]).is_err());
    assert!(client.request(DEVICE_GET_INFO, &[0; 16]).is_ok());
}

#[test]
fn an_older_client_is_answered_with_its_own_version() {
    let served = Served::simple();
    let reply = served.connect().request(VERSION, &bytes![0_u16, 0_u16]).expect("0.0 is spoken");
    assert_eq!(reply[..4], bytes![0_u16, 0_u16]);
}

#[test]
fn the_device_is_a_pci_device_that_can_be_reset() {
    let served = Served::simple();
    let mut client = served.client();
    let info = client.request(DEVICE_GET_INFO, &bytes![16_u32, 0_u32, 0_u32, 0_u32]);
    assert_eq!(info, Ok(bytes![16_u32, 3_u32, 9_u32, 5_u32]));
    for index in 0..9 {
        let size = match index {
            BAR => BAR_SIZE,
            CONFIG => 4096,
            _ => 0,
        };
        let flags = if size > 0 { 3_u32 } else { 0 };
        let body = bytes![32_u32, 0_u32, index, 0_u32, 0_u64, 0_u64];
        let info = client.request(DEVICE_GET_REGION_INFO, &body);
        assert_eq!(info, Ok(bytes![32_u32, flags, index, 0_u32, size, 0_u64]), "{index}");
    }
    assert_eq!(client.request(DEVICE_GET_REGION_INFO, &bytes![32_u32, 0_u32, 9_u32]), INVALID);
}

#[test]
fn interrupts_are_counted_by_channels() {
    let served = Served::start(Config { channels: 3, ..Config::default() });
    let mut client = served.client();
    for (index, flags, count) in [(0_u32, 7_u32, 1_u32), (1, 9, 1), (2, 9, 3), (3, 0, 0), (4, 0, 0)]
    {
        let info = client.request(DEVICE_GET_IRQ_INFO, &bytes![16_u32, 0_u32, index, 0_u32]);
        assert_eq!(info, Ok(bytes![16_u32, flags, index, count]), "{index}");
    }
    assert_eq!(client.request(DEVICE_GET_IRQ_INFO, &bytes![16_u32, 0_u32, 5_u32]), INVALID);
}

#[test]
fn registers_are_read_and_written_in_their_widths() {
    let config = Config { version: Version::V3_4, channels: 2, ..Config::default() };
    let served = Served::start(config);
    let mut client = served.client();
    assert_eq!(client.read(BAR, CBVER, 1), Ok(vec![0x34]));
    assert_eq!(client.read(BAR, CHANCNT, 1), Ok(vec![2]));
    client.write(BAR, INTRCTRL, &[1]).expect("writable");
    assert_eq!(client.read(BAR, INTRCTRL, 1), Ok(vec![1]));
    // What no processor does to a BAR.
    for (offset, count) in [
        (CBVER, 0),
        (CBVER, 3),
        (CBVER, 16),
        (CBVER + 1, 2),
        (BAR_SIZE, 1),
        (BAR_SIZE - 4, 8),
        (u64::MAX, 1),
        (u64::MAX - 7, 8),
    ] {
        assert_eq!(client.read(BAR, offset, count), INVALID, "{offset:#x} {count}");
        let data = vec![0; count as usize];
        assert!(client.write(BAR, offset, &data).is_err(), "{offset:#x} {count}");
    }
}

#[test]
fn configuration_space_is_read_in_any_pieces() {
    let served = Served::simple();
    let mut client = served.client();
    let all = client.read(CONFIG, 0, 4096).expect("all at once");
    assert_eq!(all[..4], bytes![0x8086_u16, 0x2021_u16]);
    for (offset, count) in [(0, 3), (0x3d, 7), (4095, 1), (0x100, 0)] {
        let piece = client.read(CONFIG, offset, count).expect("within");
        assert_eq!(piece, all[offset as usize..][..count as usize]);
    }
    for (offset, count) in [(4096, 1), (1, 4096), (u64::MAX, 2)] {
        assert_eq!(client.read(CONFIG, offset, count), INVALID, "{offset:#x} {count}");
    }
    // No other region has anything.
    for region in [1, 6, 8, 9, u32::MAX] {
        assert_eq!(client.read(region, 0, 4), INVALID, "{region}");
        assert!(client.write(region, 0, &[0]).is_err(), "{region}");
    }
}

#[test]
fn what_wants_no_reply_gets_none() {
    let served = Served::simple();
    let mut client = served.client();
    let mut body = bytes![INTRCTRL, BAR, 1_u32];
    body.push(1);
    let quiet = client.message(REGION_WRITE, NO_REPLY, &body);
    client.send(&quiet, &[]);
    // Neither for what is refused.
    let refused = client.message(0xffff, NO_REPLY, &[]);
    client.send(&refused, &[]);
    // The reply that comes is to this one, which sees the write.
    assert_eq!(client.read(BAR, INTRCTRL, 1), Ok(vec![1]));
}

#[test]
fn a_socket_that_nobody_listens_at_is_replaced_and_no_other() {
    let path = socket_path();
    let in_use = Server::bind(&path, Config::default()).expect("a fresh path");
    let error = Server::bind(&path, Config::default()).expect_err("it is in use");
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    drop(in_use);
    assert!(!path.exists(), "its socket is removed");

    // Left behind by a process that was killed.
    drop(UnixListener::bind(&path).expect("a fresh path"));
    assert!(path.exists());
    let server = Server::bind(&path, Config::default()).expect("nobody listens");

    // Somebody else has put a file of his own in its place: it stays.
    std::fs::remove_file(&path).expect("it is there");
    std::fs::write(&path, "precious").expect("a file");
    drop(server);
    let error = Server::bind(&path, Config::default()).expect_err("it is no socket");
    assert!(matches!(error, BindError::NotASocket(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "precious");
    std::fs::remove_file(&path).expect("it is there");

    let nowhere = path.join("no/such/folder");
    let error = Server::bind(&nowhere, Config::default()).expect_err("there is no such folder");
    assert!(error.to_string().contains("no/such/folder"), "{error}");
}
