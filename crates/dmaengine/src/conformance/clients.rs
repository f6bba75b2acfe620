use std::sync::Barrier;

use super::{
    Suite,
    client::Client,
    samples::{Samples, declared},
};
use crate::{
    DmaChannel, DmaDevice, Flags, OperationKind, RequestError, Status, SubmitError,
    random::SplitMix64,
};

impl Suite<'_> {
    /// One channel goes from thread to thread, each of which submits something and leaves it to the
    /// next to see it end.
    pub fn hand_over(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        let count = client.info().ring_size.min(3);
        let mut samples = Samples::of_len(&client, count, client.fitting(4096, count));
        for round in 0..20 {
            (client, samples) = std::thread::scope(|scope| {
                let thread = scope.spawn(move || {
                    client.wait_for_success();
                    if round > 0 {
                        samples.check("copies that another thread submitted");
                    }
                    for slot in 0..count {
                        samples.clear(slot);
                        let kind = OperationKind::Memcpy;
                        samples.submit(&mut client, kind, Flags::empty(), slot).expect("room");
                    }
                    // The doorbell too, sometimes.
                    if round % 2 == 0 {
                        client.issue();
                    }
                    (client, samples)
                });
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
        }
        client.wait_for_success();
        samples.check("copies that another thread submitted");
        client.finish();
    }

    /// Several channels of one device, each with a client in a thread of its own that submits,
    /// waits and stops as it likes: none of them notices the others.
    ///
    /// # Panics
    ///
    /// Also if there are fewer than two channels.
    pub fn clients(&self, channels: Vec<Box<dyn DmaChannel>>) {
        assert!(channels.len() >= 2, "several clients need several channels");
        let start = Barrier::new(channels.len());
        std::thread::scope(|scope| {
            let threads: Vec<_> = channels
                .into_iter()
                .enumerate()
                .map(|(seed, channel)| {
                    let client = Client::new(self, channel);
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        mixed_work(client, seed as u64);
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
        });
    }

    /// Everything: what [`all`](Self::all) asks of a channel, of channel 0 of `device`; what a
    /// device must do with its channels; and, if it has several, [`clients`](Self::clients).
    ///
    /// The arena is mapped for the device. All channels must be free.
    pub fn device(&self, device: &dyn DmaDevice) {
        for _ in 0..2 {
            device.map(self.arena).expect("the arena can be mapped, and again");
        }
        let channels = device.channels().len();
        assert!(channels > 0, "a device has a channel");
        let request = |index: usize| {
            let channel = device.request_channel(index).expect("a free channel is handed out");
            assert_eq!(channel.info(), &device.channels()[index], "the channel listed");
            channel
        };
        let held = request(0);
        let again = device.request_channel(0);
        assert!(matches!(again, Err(RequestError::InUse)), "in use, but: {again:?}");
        let beyond = device.request_channel(channels);
        let expected = matches!(
            beyond,
            Err(RequestError::NoSuchChannel { index, channels: all })
                if index == channels && all == channels
        );
        assert!(expected, "there is no such channel, but: {beyond:?}");
        drop(held);
        self.all(|| request(0));
        if channels > 1 {
            self.clients((0..channels).map(request).collect());
        }
    }
}

/// A client that does this and that for a while.
fn mixed_work(mut client: Client, seed: u64) {
    let mut random = SplitMix64::new(seed);
    let kinds = declared(&client);
    let slots = client.info().ring_size.min(16);
    for round in 0..100 {
        let len = client.fitting([64, 1500, 4096, 1 << 16][random.below(4)], slots);
        let mut samples = Samples::of_len(&client, slots, len);
        for slot in 0..1 + random.below(slots) {
            let kind = kinds[random.below(kinds.len())];
            match samples.submit(&mut client, kind, Flags::empty(), slot) {
                Ok(_) => {}
                Err(SubmitError::RingFull) if slot > 0 => break,
                Err(error) => panic!("{kind}: {error}"),
            }
            if random.below(3) == 0 {
                client.issue();
            }
        }
        if round % 10 == 9 {
            client.issue();
            for ended in client.terminate() {
                let stopped = matches!(ended.status, Status::Success | Status::Aborted);
                assert!(stopped, "after a stop: {}", ended.status);
                if ended.status == Status::Success {
                    samples.check_slot(ended.tag, "before a stop, beside other clients");
                }
            }
        } else {
            client.wait_for_success();
            samples.check("beside other clients");
        }
    }
    client.finish();
}
