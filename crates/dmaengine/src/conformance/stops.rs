use super::{Suite, batch::Batch, client::Client};
use crate::{DmaChannel, Flags, Status};

/// The length of the copies that a stop interrupts, in bytes, if the ring holds as much.
const LEN: usize = 1 << 20;

impl Suite<'_> {
    /// Stopping a channel that never did anything works, twice, and leaves it well.
    pub fn stop_of_an_unused_channel(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        for _ in 0..2 {
            assert_eq!(client.terminate(), [], "nothing was submitted");
        }
        client.works();
        client.finish();
    }

    /// A channel can be stopped again and again, with and without work in between, and its cookies
    /// go on.
    pub fn stops_and_starts(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        for round in 0..50 {
            if round % 3 != 0 {
                client.works();
            }
            for _ in 0..1 + round % 2 {
                assert_eq!(client.terminate(), [], "nothing is in flight");
            }
        }
        client.finish();
    }

    /// A stop in the middle of work ends every operation once: those that had ended with success
    /// and all bytes, the others aborted, the one that was not issued too. After it the engine
    /// touches nothing of theirs, and the channel works.
    pub fn terminate_in_flight(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        for round in 0..8 {
            let count = client.info().ring_size.min(4);
            let mut batch = Batch::new(&client, count, client.fitting(LEN, count));
            for slot in 0..count {
                // The last one sometimes after the doorbell.
                if slot == count - 1 && round % 4 == 0 {
                    client.issue();
                }
                batch.submit(&mut client, Flags::empty());
            }
            if round % 4 != 0 {
                client.issue();
            }
            if round % 2 == 1 {
                client.poll();
            }
            let ended = client.terminate();
            assert_eq!(ended.len(), count);
            for operation in ended {
                let status = operation.status;
                let stopped = matches!(status, Status::Success | Status::Aborted);
                assert!(stopped, "operation {} of a stopped channel: {status}", operation.number);
                batch.settle(&operation, "before a stop");
            }
            batch.check("copies that were stopped");
            batch.overwrite();
            client.works();
            batch.check("memory of copies that were stopped");
        }
        client.finish();
    }

    /// After a channel with work in flight was dropped, the memory is nobody's.
    pub fn drop_in_flight(&self, fresh: &mut dyn FnMut() -> Box<dyn DmaChannel>) {
        for round in 0..3 {
            let mut client = Client::new(self, fresh());
            let count = client.info().ring_size.min(3);
            let mut batch = Batch::new(&client, count, client.fitting(LEN, count));
            for _ in 0..count {
                batch.submit(&mut client, Flags::empty());
            }
            if round > 0 {
                client.issue();
            }
            drop(client);
            batch.overwrite();
            Client::new(self, fresh()).finish();
            batch.check("memory of copies whose channel was dropped");
        }
    }

    /// Handing a channel out and back many times leaves it well.
    pub fn restart(&self, fresh: &mut dyn FnMut() -> Box<dyn DmaChannel>) {
        for round in 0..20 {
            let mut client = Client::new(self, fresh());
            if round % 3 != 0 {
                client.works();
            }
            if round % 2 == 0 {
                assert_eq!(client.terminate(), [], "nothing is in flight");
            }
            if round % 4 == 3 {
                // Without a last look.
                drop(client);
            } else {
                client.finish();
            }
        }
    }
}
