use std::time::Duration;

use super::{Suite, batch::Batch, client::Client};
use crate::{Capabilities, DmaBuf, DmaChannel, Done, Flags, Queue};

impl Suite<'_> {
    /// An armed event comes, after the last operation; with nothing to wait for there is none.
    ///
    /// A channel without [`INTERRUPT`](Capabilities::INTERRUPT) must not arm, and has no event.
    pub fn events(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        assert!(!client.arm(), "armed, and nothing is in flight");
        let has_event = client.info().capabilities.contains(Capabilities::INTERRUPT);
        assert_eq!(client.event().is_some(), has_event, "an event is there if INTERRUPT is");
        for round in 0..200 {
            let count = (1 + round % 4).min(client.info().ring_size);
            let len = client.fitting(if round % 8 == 0 { 1 << 16 } else { 64 }, count);
            let mut batch = Batch::new(&client, count, len);
            for _ in 0..count {
                batch.submit(&mut client, Flags::empty());
            }
            client.issue();
            while client.arm() {
                assert!(has_event, "armed without an event");
                client.wait_for_event();
                client.poll();
            }
            if has_event {
                client.poll();
                assert_eq!(client.in_flight(), 0, "in flight, and there is nothing to wait for");
            }
            let ended = client.wait_for_success();
            assert_eq!(ended.len(), count);
            ended.iter().for_each(|operation| batch.settle(operation, "behind an event"));
            batch.check("copies that an event was armed for");
            assert!(!client.arm(), "armed, and everything was reported");
        }
        client.finish();
    }

    /// No call outlasts its deadline: a wait and a stop that get no time at all come back, having
    /// done it or saying that they have not, and what was in flight then ends all the same.
    pub fn deadlines(&self, channel: Box<dyn DmaChannel>) {
        let mut client = Client::new(self, channel);
        for _ in 0..10 {
            let count = client.info().ring_size.min(4);
            let mut batch = Batch::new(&client, count, client.fitting(1 << 20, count));
            for _ in 0..count {
                batch.submit(&mut client, Flags::empty());
            }
            client.issue();
            if client.terminate_within(Duration::ZERO).is_err() {
                // Still the engine's. With time it must do.
                client.stop();
            }
            client.poll();
            let ended = client.take_ended();
            assert_eq!(ended.len(), count, "operations reported after a stop");
            ended.iter().for_each(|operation| batch.settle(operation, "a stop without time"));
            batch.check("a stop without time");
        }
        client.finish();
    }

    /// As [`deadlines`](Self::deadlines), for the wait of the safe [`Queue`].
    pub fn queue_deadlines(&self, channel: Box<dyn DmaChannel>) {
        const LEN: usize = 1 << 20;
        let mut queue: Queue<_, _, usize> = Queue::new(channel);
        let info = queue.info().clone();
        let len = (LEN.min(info.xfercap.get()) / info.alignment).max(1) * info.alignment.get();
        let count = info.ring_size.min(4);
        for index in 0..count {
            let [mut source, target] =
                [(); 2].map(|()| self.arena.alloc(len).expect("an arena of ARENA_LEN bytes"));
            source.fill(index as u8 + 1);
            queue.copy(source, target, index).expect("room");
        }
        let mut ended = 0;
        let mut check = |done: Done<DmaBuf, DmaBuf, usize>| {
            assert!(done.target.iter().all(|&byte| byte == done.tag as u8 + 1), "a copy");
            ended += 1;
        };
        if let Err(late) = queue.wait(Duration::ZERO, &mut check) {
            assert_eq!(late.in_flight, queue.in_flight());
            queue.wait(self.timeout, &mut check).expect("operations were lost");
        }
        assert_eq!((ended, queue.spurious_completions()), (count, 0));
    }
}
