//! Channels that are dropped and cannot be stopped.

use std::{env, os::unix::process::ExitStatusExt, process::Command, time::Duration};

use dmaengine::{DmaDevice, RequestError};
use ioat_model::{Fault, Faults, Stepped};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use crate::rig::{FIRST, Rig};

/// Set in the process that ends.
const CHILD: &str = "IOATDMA_TEST_DROPS_A_STUCK_CHANNEL";

/// The device may still write to the memory of what is in flight, so nobody may get that. The process
/// aborts, and another one is asked: this test, with a variable set.
#[test]
fn with_work_in_flight_the_process_ends() {
    if env::var_os(CHILD).is_some() {
        // The end is meant: no file is to tell of it.
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        setrlimit(Resource::Core, none).expect("less is always allowed");
        let mut rig = Rig::<Stepped>::with_faults(Faults::none().at(0, FIRST, Fault::Dead));
        rig.submit(0, 10);
        rig.queue.issue_pending();
        assert!(!rig.host.shell.step(), "it looked at the descriptor, and stopped");
        drop(rig.queue);
        return;
    }
    let output = Command::new(env::current_exe().expect("a path"))
        .args(["dropped::with_work_in_flight_the_process_ends", "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()), "{stderr}");
    let message = "ioatdma: channel 0 of ioat-model cannot be stopped and may still write to memory \
                   that is about to be reused; the process ends here";
    assert!(stderr.contains(message), "{stderr}");
}

/// Of the ring alone nobody else gets the memory: it is leaked, and the channel stays taken.
#[test]
fn without_work_the_process_goes_on_and_the_channel_is_not_handed_out_again() {
    let rig = Rig::<Stepped>::with_faults(Faults::none());
    rig.host.shell.order(0, Fault::SlowReset(Duration::from_secs(1000)));
    drop(rig.queue);
    assert!(matches!(rig.device.request_channel(0), Err(RequestError::InUse)));
}
