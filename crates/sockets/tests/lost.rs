//! An engine that has a program's buffer and cannot be stopped, for good.

use std::{
    env,
    io::{ErrorKind, Write},
    os::unix::process::ExitStatusExt,
    process::Command,
    sync::Arc,
    time::Duration,
};

use dmaengine::{FaultPlan, Faults, Layered, ThreadsDevice};
use netdev::{BufferCounts, WireConfig};
use sockets::{ReceiveRing, RecvFlags, TcpListener, TcpStream};

use self::pair::{SERVER, connect, pair_on, pattern};

mod pair;

/// Whether the engine fails.
const FAILS: bool = false;

const LEN: usize = 5000;

/// A connection whose server's engine ends nothing, and is never proven idle. Its bytes are sent.
fn connected() -> (TcpStream, TcpStream) {
    let plan: FaultPlan = "lose@1/1,stuck=1000000".parse().unwrap();
    let device = Arc::new(Layered::new(Arc::new(ThreadsDevice::new(1)), Faults::new(plan)));
    let buffers = BufferCounts { small: 256, large: 1 };
    let wire = WireConfig { buffers, ..WireConfig::default() };
    let (client, server, _arena) = pair_on(device, &wire);
    let (mut client, stream) = connect(&client, &TcpListener::bind(&server, SERVER).unwrap());
    client.write_all(&pattern(LEN, 1)).unwrap();
    (client, stream)
}

/// In the child's environment.
const IS_CHILD: &str = "SOCKETS_TESTS_LOST_CHILD";

#[test]
fn a_call_whose_buffer_it_has_ends_the_process() {
    if env::var_os(IS_CHILD).is_some() {
        let (_client, stream) = connected();
        let returned = stream.recv(&mut [0; LEN], RecvFlags::WAITALL);
        panic!("the engine may write to a buffer that is free: {returned:?}");
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_call_whose_buffer_it_has_ends_the_process", "--nocapture"])
        .env(IS_CHILD, "")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{}: {told}", output.status);
    assert!(told.contains("an engine still owns memory that must be given back"), "{told}");
}

#[test]
fn a_posted_buffer_stays_with_it_and_who_waits_is_told() {
    let (_client, stream) = connected();
    let mut ring = ReceiveRing::new(&stream);
    ring.post_with(vec![0; LEN], RecvFlags::WAITALL);
    let waited = ring.wait(Some(Duration::from_secs(60)));
    let told = waited.map(|_| ()).expect_err("the engine has it");
    assert_eq!((told.kind(), ring.len()), (ErrorKind::Other, 1), "{told}");
    assert!(told.to_string().contains("cannot be stopped"), "{told}");
}
