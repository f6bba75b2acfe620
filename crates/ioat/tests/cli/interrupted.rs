//! Ctrl-C leaves nothing behind.

use std::{fs, os::unix::process::ExitStatusExt, path::PathBuf, process::Command};

use rustix::process::Signal;

use crate::{IOAT, Running, STACK, in_namespace, links_here, waiting::until};

/// `ioat` with these arguments, which Ctrl-C ends also if the tests run where it is ignored: in the
/// background of a shell, whose children inherit that.
fn interruptible(arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT", IOAT]).args(arguments);
    command
}

#[test]
fn recv_leaves_no_link() {
    in_namespace(|| {
        for connected in [false, true] {
            let mut running = Running::listening(&mut interruptible(&["recv", "--listen", STACK]));
            assert_eq!(links_here(), ["lo", "ioat0"]);
            let _sender = connected.then(|| {
                let sender = std::net::TcpStream::connect(STACK).unwrap();
                running.wait_for("receiving from ");
                sender
            });
            running.interrupt();
            let output = running.finish();
            assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()));
            assert_eq!(links_here(), ["lo"]);
        }
    });
}

#[test]
fn demo_leaves_no_link_and_no_namespace() {
    in_namespace(|| {
        let running = Running::start(&mut interruptible(&["demo", "--bytes", "1T"]));
        // Its last receiver is there.
        until("the demo runs", || running.links().contains(&"ioat2".to_owned()));
        let own = network_namespace(&format!("/proc/{}/ns/net", running.child.id())).unwrap();
        assert_ne!(Some(&own), network_namespace("/proc/thread-self/ns/net").as_ref());
        assert!(processes_in(&own) > 0);
        running.interrupt();
        let output = running.finish();
        assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()));
        assert_eq!(processes_in(&own), 0);
        assert_eq!(links_here(), ["lo"]);
    });
}

fn network_namespace(path: &str) -> Option<PathBuf> {
    fs::read_link(path).ok()
}

/// A namespace lasts as long as a process, a mount or an open file has it; the last two would be of
/// a process too.
fn processes_in(namespace: &PathBuf) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let paths = processes.map(|process| process.path().join("ns/net"));
    paths.filter(|path| fs::read_link(path).is_ok_and(|found| found == *namespace)).count()
}
