//! How often registers are accessed. To read one is a round trip over the bus, for which the processor
//! waits: what works well takes none.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dmaengine::{Arena, DmaDevice, Queue, Status};
use ioat_model::{Config, Stepped, Version};
use ioatdma::{Bar, Completions, IoatDevice, Options};

use crate::{
    machine::Host,
    rig::{Rig, check},
    versions,
};

/// What was done with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read { offset: u64 },
    Write { offset: u64, value: u64 },
}

/// The model, which notes what is asked of it.
struct Recorder {
    host: Arc<Host<Stepped>>,
    accesses: Mutex<Vec<Access>>,
}

impl Recorder {
    fn read(&self, offset: u64) {
        self.accesses.lock().expect("no panic").push(Access::Read { offset });
    }

    fn write(&self, offset: u64, value: u64) {
        self.accesses.lock().expect("no panic").push(Access::Write { offset, value });
    }

    /// All since the last call.
    fn take(&self) -> Vec<Access> {
        std::mem::take(&mut *self.accesses.lock().expect("no panic"))
    }
}

impl Bar for Recorder {
    fn size(&self) -> u64 {
        self.host.size()
    }
    fn read8(&self, offset: u64) -> u8 {
        self.read(offset);
        self.host.read8(offset)
    }
    fn read16(&self, offset: u64) -> u16 {
        self.read(offset);
        self.host.read16(offset)
    }
    fn read32(&self, offset: u64) -> u32 {
        self.read(offset);
        self.host.read32(offset)
    }
    fn read64(&self, offset: u64) -> u64 {
        self.read(offset);
        self.host.read64(offset)
    }
    fn write8(&self, offset: u64, value: u8) {
        self.write(offset, value.into());
        self.host.write8(offset, value);
    }
    fn write16(&self, offset: u64, value: u16) {
        self.write(offset, value.into());
        self.host.write16(offset, value);
    }
    fn write32(&self, offset: u64, value: u32) {
        self.write(offset, value.into());
        self.host.write32(offset, value);
    }
    fn write64(&self, offset: u64, value: u64) {
        self.write(offset, value);
        self.host.write64(offset, value);
    }
    fn delay(&self, duration: Duration) {
        self.host.delay(duration);
    }
    fn now(&self) -> Duration {
        self.host.now()
    }
}

fn rig(config: Config, options: Options) -> (Rig<Stepped>, Arc<Recorder>) {
    let host = Host::<Stepped>::new(config);
    let recorder = Arc::new(Recorder { host: Arc::clone(&host), accesses: Mutex::default() });
    let mut resources = host.resources();
    resources.bar = Arc::clone(&recorder) as _;
    let device = IoatDevice::probe(resources, options).expect("a good device");
    let arena = Arena::new(4 << 20).expect("memory");
    device.map(&arena).expect("room");
    let queue = Queue::new(device.request_channel(0).expect("free"));
    (Rig { queue, arena, device, host }, recorder)
}

/// From submission to the end, over several rounds of the ring, with polls that find nothing between
/// those that do.
#[test]
fn a_batch_takes_one_write_and_no_read() {
    /// DMACOUNT, and CHANCMD of version 1.2 with APPEND, of channel 0.
    const DMACOUNT: u64 = 0x86;
    const CHANCMD: u64 = 0x94;
    const APPEND: u64 = 0x02;
    /// Copies, and the descriptors that each takes.
    const BATCH: usize = 8;
    const EACH: usize = 3;

    for (name, config) in versions::all() {
        for completions in [Completions::PerOperation, Completions::PerBatch] {
            let options = Options { ring_order: 5, completions, ..Options::default() };
            let config = Config { xfercap: 12, ..config.clone() };
            let chains = config.version == Version::V1_2;
            let (mut rig, recorder) = rig(config, options);
            assert_ne!(recorder.take(), [], "{name}: it records");
            // The one that started the chain.
            let mut descriptors = 1;
            for round in 0..10 {
                for number in 0..BATCH {
                    rig.submit(number, 10_000);
                }
                descriptors += BATCH * EACH;
                assert_eq!(
                    recorder.take(),
                    [],
                    "{name}, round {round}: the doorbell is rung later"
                );
                rig.queue.issue_pending();
                let doorbell = if chains {
                    Access::Write { offset: CHANCMD, value: APPEND }
                } else {
                    Access::Write { offset: DMACOUNT, value: descriptors as u64 }
                };
                assert_eq!(recorder.take(), [doorbell], "{name}, round {round}");
                let mut ended = 0;
                let mut more = true;
                while more {
                    more = rig.host.shell.step();
                    for _ in 0..3 {
                        ended += rig.queue.poll(|done| check(&done, Status::Success));
                    }
                }
                assert_eq!(ended, BATCH, "{name}, round {round}");
                assert_eq!(rig.queue.space(), rig.queue.info().ring_size);
                assert_eq!(recorder.take(), [], "{name}, round {round}: memory says all");
            }
        }
    }
}
