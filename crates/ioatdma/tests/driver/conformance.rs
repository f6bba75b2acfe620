//! What every engine must do, and Linux's `dmatest` patterns.

use std::{os::fd::BorrowedFd, sync::Arc, time::Duration};

use dmaengine::{
    Arena, ChannelInfo, Completion, Cookie, DmaChannel, DmaDevice, Flags, Operation, Stuck,
    SubmitError, conformance, dmatest,
};
use ioat_model::{
    Config, Fault, Faults, Stepped,
    registers::{ChanErr, DmaCapability},
};
use ioatdma::{Behind, Completions, IoatDevice, OnIncident, Options};

use crate::{
    failing::{Failing, STATUSES},
    machine::{Host, Shell, Threaded},
    versions,
};

fn device<S: Shell>(config: Config, options: Options) -> (IoatDevice, Arc<Host<S>>, Arena) {
    let host = Host::new(config);
    // Shown if the test fails.
    let on_incident: Arc<OnIncident> = Arc::new(|incident| println!("{incident}"));
    let options = Options { on_incident: Some(on_incident), ..options };
    let device = host.probe(options).expect("a good device");
    let arena = Arena::new(conformance::ARENA_LEN).expect("memory");
    device.map(&arena).expect("room");
    (device, host, arena)
}

/// Small pieces and a small ring, so that all borders are crossed; and the usual sizes.
fn configurations() -> [(Config, Options); 3] {
    let small = Config { xfercap: 16, ..Config::default() };
    let options = Options { ring_order: 6, ..Options::default() };
    let per_batch = Options { completions: Completions::PerBatch, ..Options::default() };
    [
        (small, options),
        (Config::default(), per_batch),
        (
            Config { capability: Some(DmaCapability::empty()), ..Config::default() },
            Options::default(),
        ),
    ]
}

/// As [`configurations`], every version in turn, with several channels.
fn every_version() -> impl Iterator<Item = (&'static str, Config, Options)> {
    let cases = versions::all().into_iter().zip([12, 20, 16].into_iter().cycle());
    cases.enumerate().map(|(index, ((name, config), xfercap))| {
        let completions =
            if index % 2 == 0 { Completions::PerOperation } else { Completions::PerBatch };
        let ring_order = [6, 8][index % 2];
        (
            name,
            Config { xfercap, channels: [2, 4][index % 2], ..config },
            Options { completions, ring_order, ..Options::default() },
        )
    })
}

#[test]
fn on_its_own_thread() {
    for (config, options) in configurations() {
        let (device, _host, arena) = device::<Threaded>(config, options);
        conformance::all(|| device.request_channel(0).expect("free"), &arena);
    }
}

#[test]
fn on_its_own_thread_in_every_version() {
    for (name, config, options) in every_version() {
        println!("{name}");
        let (device, _host, arena) = device::<Threaded>(config, options);
        conformance::device(&device, &arena);
    }
}

/// A channel of a stepped device: the device works while the client polls, and when a client is
/// about to wait for its event, as nobody else would move it then.
#[derive(Debug)]
struct Moving {
    channel: Box<dyn DmaChannel>,
    host: Arc<Host<Stepped>>,
}

// SAFETY: every promise is the inner channel's.
unsafe impl DmaChannel for Moving {
    fn info(&self) -> &ChannelInfo {
        self.channel.info()
    }
    fn space(&self) -> usize {
        self.channel.space()
    }
    unsafe fn submit(
        &mut self,
        operation: &Operation<'_>,
        flags: Flags,
    ) -> Result<Cookie, SubmitError> {
        // SAFETY: the caller's promise.
        unsafe { self.channel.submit(operation, flags) }
    }
    fn issue_pending(&mut self) {
        self.channel.issue_pending();
    }
    fn poll(&mut self, report: &mut dyn FnMut(Completion)) {
        self.host.shell.step();
        self.channel.poll(report);
    }
    fn arm(&mut self) -> bool {
        let armed = self.channel.arm();
        while armed && self.host.shell.step() {}
        armed
    }
    fn event(&self) -> Option<BorrowedFd<'_>> {
        self.channel.event()
    }
    fn terminate_sync(&mut self, timeout: Duration) -> Result<(), Stuck> {
        self.channel.terminate_sync(timeout)
    }
}

/// The last channel: those before it are idle.
#[test]
fn stepped() {
    for (name, config, options) in every_version() {
        println!("{name}");
        let (device, host, arena) = device::<Stepped>(config, options);
        let last = device.channels().len() - 1;
        let fresh = || {
            let channel = device.request_channel(last).expect("free");
            Box::new(Moving { channel, host: Arc::clone(&host) }) as Box<dyn DmaChannel>
        };
        conformance::all(fresh, &arena);
    }
}

/// With a device that works by itself, for the usual ways to report completions.
#[test]
fn errors() {
    let behind = [Behind::Abort, Behind::Retry].into_iter().cycle();
    for ((name, config, options), behind) in every_version().zip(behind) {
        println!("{name}, {behind:?}");
        let options = Options { behind, ..options };
        let (device, host, arena) = device::<Threaded>(config, options);
        let failing = |failures: &[conformance::Failure]| {
            let channel = device.request_channel(0).expect("free");
            let plan = failures.iter().map(|failure| (failure.index, failure.status));
            Box::new(Failing::new(channel, &host, plan)) as Box<dyn DmaChannel>
        };
        conformance::errors(&STATUSES, failing, &arena);
    }
}

#[test]
fn dmatest_finds_nothing() {
    for (name, config, options) in every_version() {
        let (device, _host, arena) = device::<Threaded>(config, options);
        for operation in [
            dmatest::Operation::Memcpy,
            dmatest::Operation::Memset,
            dmatest::Operation::Xor,
            dmatest::Operation::Pq,
        ] {
            if !device.channels()[0].capabilities.contains(operation.kind().capability()) {
                continue;
            }
            for polled in [false, true] {
                let params = dmatest::Params {
                    operation,
                    iterations: 100,
                    threads_per_chan: 4,
                    polled,
                    ..dmatest::Params::default()
                };
                let channel = device.request_channel(0).expect("free");
                let summary = dmatest::run(channel, &arena, &params, |_| ()).expect("runs");
                assert_eq!((summary.tests, summary.failures), (400, 0), "{name}: {summary}");
            }
        }
    }
}

/// A test that cannot fail proves nothing: `dmatest` must see an engine that fails.
#[test]
fn dmatest_finds_a_fault() {
    let faults = Faults::none().at(0, 50, Fault::Error(ChanErr::WRITE_DATA));
    let config = Config { faults, ..Config::default() };
    let (device, _host, arena) = device::<Threaded>(config, Options::default());
    // Polled: no interrupt's descriptor, of which there are as many as waits, may meet the fault.
    let params = dmatest::Params { iterations: 200, polled: true, ..dmatest::Params::default() };
    let channel = device.request_channel(0).expect("free");
    let summary = dmatest::run(channel, &arena, &params, |_| ()).expect("runs");
    assert_eq!((summary.tests, summary.failures), (200, 1), "{summary}");
}
