//! `ioat emulate`: how it begins, ends, and refuses.

mod faults;

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use crate::{DONE, Running, USAGE, folder, ioat, refuses};

/// A folder of the test's own with a short path, for sockets.
struct Short(PathBuf);

impl Short {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ioat-cli-{}-{name}", std::process::id()));
        fs::create_dir(&path).expect("a fresh name");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A message of the protocol.
fn message(command: u16, body: &[u8]) -> Vec<u8> {
    let mut message = 1_u16.to_le_bytes().to_vec();
    message.extend(command.to_le_bytes());
    message.extend((16 + body.len() as u32).to_le_bytes());
    message.extend([0; 8]);
    message.extend_from_slice(body);
    message
}

#[test]
fn signals_end_it_and_it_leaves_no_socket() {
    let short = Short::new("signals");
    for (signal, connected) in [(Signal::INT, false), (Signal::TERM, false), (Signal::INT, true)] {
        let socket = short.path("socket");
        let running = Running::listening(&mut ioat(&["emulate", "--socket", &socket]));
        let client = connected.then(|| UnixStream::connect(&socket).expect("it listens"));
        kill_process(running.pid(), signal).expect("our own child");
        let output = running.finish();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), DONE, "{said}");
        assert!(output.stdout.is_empty());
        assert!(fs::symlink_metadata(&socket).is_err(), "the socket is still there");
        drop(client);
    }
}

#[test]
fn it_serves_the_device_that_was_ordered_and_traces_it() {
    let short = Short::new("serves");
    let (socket, trace) = (short.path("socket"), short.path("trace"));
    let order = ["--version", "3.4", "--channels", "3", "--xfercap", "64K", "--trace", &trace];
    let mut running = Running::listening(ioat(&["emulate", "--socket", &socket]).args(order));
    let mut client = UnixStream::connect(&socket).expect("it listens");
    client.write_all(&message(1, &[0, 0, 1, 0])).expect("it reads");
    // CHANCNT, XFERCAP and CBVER; a command that there is not.
    for offset in [0_u64, 1, 8] {
        let mut body = offset.to_le_bytes().to_vec();
        body.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        client.write_all(&message(9, &body)).expect("it reads");
    }
    client.write_all(&message(99, &[])).expect("it reads");
    client.shutdown(std::net::Shutdown::Write).expect("a socket");
    let mut replies = Vec::new();
    client.read_to_end(&mut replies).expect("it replies");
    // From the back: a bare header with an error, then three replies of one byte each.
    let reads: Vec<u8> = replies[..replies.len() - 16].rchunks(33).take(3).map(|r| r[32]).collect();
    assert_eq!(reads, [0x34, 16, 3]);
    running.wait_for("a client has connected");
    running.wait_for("command 99 refused: ");
    running.wait_for("connection over: ");
    running.interrupt();
    assert_eq!(running.finish().status.code(), DONE);
    let trace = fs::read_to_string(trace).expect("it was written");
    let accesses: Vec<&str> =
        trace.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    assert_eq!(accesses, ["bar 0x000 1 -> 0x3", "bar 0x001 1 -> 0x10", "bar 0x008 1 -> 0x34"]);
}

#[test]
fn clients_wait_while_there_is_no_file_for_them() {
    let short = Short::new("files");
    let socket = short.path("socket");
    let mut running = Running::listening(&mut ioat(&["emulate", "--socket", &socket]));
    let enough = getrlimit(Resource::Nofile);
    // The only numbers that it may give a file are those of its standard streams.
    let none = Rlimit { current: Some(3), ..enough };
    let limit = |running: &Running, limit| {
        prlimit(Some(running.pid()), Resource::Nofile, limit).expect("our own child");
    };
    limit(&running, none);
    let mut client = UnixStream::connect(&socket).expect("it listens");
    running.wait_for("a client has to wait");
    limit(&running, enough);
    running.wait_for("a client has connected");
    client.write_all(&message(1, &[0, 0, 1, 0])).expect("it reads");
    client.read_exact(&mut [0; 16]).expect("it replies");
    drop(client);
    running.wait_for("connection over: ");
    // It also ends as it should, and says it once.
    limit(&running, none);
    let _client = UnixStream::connect(&socket).expect("it listens");
    running.wait_for("a client has to wait");
    running.interrupt();
    let output = running.finish();
    assert_eq!(output.status.code(), DONE);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn orders_that_make_no_sense_are_refused() {
    let short = Short::new("orders");
    let socket = short.path("socket");
    let emulate = |arguments: &[&str]| {
        let mut command = ioat(&["emulate", "--socket", &socket]);
        command.args(arguments);
        command
    };
    refuses(&mut ioat(&["emulate"]), USAGE, &["--socket"]);
    refuses(&mut emulate(&["--version", "3.1"]), USAGE, &["3.1", "3.2"]);
    for channels in ["0", "5"] {
        refuses(&mut emulate(&["--channels", channels]), USAGE, &["--channels"]);
    }
    refuses(&mut emulate(&["--xfercap", "3M"]), USAGE, &["power of two"]);
    refuses(&mut emulate(&["--interrupts", "smoke"]), USAGE, &["msix"]);
    for (fault, word) in [("explode@5", "explode"), ("hang", "@"), ("error@5", "read-data")] {
        refuses(&mut emulate(&["--fault", fault]), USAGE, &["--fault", word]);
    }
    // The second one is wrong.
    refuses(&mut emulate(&["--fault", "hang@5", "--fault", "halt@x"]), USAGE, &["--fault", "x"]);
    refuses(&mut emulate(&["--trace", "/no/such/folder/trace"]), USAGE, &["--trace"]);
    assert!(fs::symlink_metadata(&socket).is_err(), "a refusal leaves nothing");
}

#[test]
fn paths_that_are_taken_are_refused() {
    let short = Short::new("paths");
    let file = short.path("file");
    fs::write(&file, "precious").expect("a file");
    refuses(&mut ioat(&["emulate", "--socket", &file]), USAGE, &["no socket", "another path"]);
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "precious");
    let socket = short.path("socket");
    let _listener = UnixListener::bind(&socket).expect("a fresh path");
    refuses(&mut ioat(&["emulate", "--socket", &socket]), USAGE, &["another server"]);
    let nowhere = folder("emulate").join("none/socket");
    let nowhere = nowhere.to_str().expect("text");
    refuses(&mut ioat(&["emulate", "--socket", nowhere]), USAGE, &[nowhere]);
}
