use super::*;

#[test]
fn a_batch_has_one_doorbell() {
    for (channel, strings) in puppets() {
        let copier = Memories::new(channel, TIMEOUT).unwrap();
        let mut batch = copier.batch();
        let copying = batch.copy(strings.memory(b"from"), strings.memory(b"to.."));
        let filling = batch.fill(7, strings.memory(b"to......"));
        let lists = (vec![strings.memory(b"from")], vec![strings.memory(b"to..")]);
        let gathering = batch.copy_sg(lists.0, lists.1);
        drop(batch.copy(strings.memory(b"from"), strings.memory(b"gone")));
        assert_eq!((strings.in_ring(), strings.doorbells()), (4, 0));
        batch.issue();
        assert_eq!(strings.doorbells(), 1);
        strings.end_after_polls(0);
        assert_eq!(copying.wait().unwrap().target.as_ref(), b"from");
        assert_eq!(filling.wait().unwrap().target.as_ref(), 7u64.to_le_bytes());
        assert_eq!(gathering.wait().unwrap().target[0].as_ref(), b"from");
        eventually("what was given up is freed", || strings.dropped() == (2 + 1 + 2 + 2, 0));
        assert_eq!((strings.doorbells(), strings.terminations()), (1, 0));
    }
}

#[test]
fn to_wait_for_one_of_a_batch_starts_it() {
    for blocking in [false, true] {
        let (channel, strings) = Puppet::with_event();
        let copier = Memories::new(channel, TIMEOUT).unwrap();
        let mut batch = copier.batch();
        let copying = batch.copy(strings.memory(b"from"), strings.memory(b"to.."));
        strings.end_after_polls(1);
        let done = if blocking { copying.wait() } else { block_on(copying) };
        assert_eq!((done.unwrap().status, strings.doorbells()), (Status::Success, 1));
        drop(batch);
        assert_eq!(strings.doorbells(), 1, "there is nothing else");
    }
}

#[test]
fn a_batch_that_is_longer_than_the_ring_takes_turns() {
    let (channel, strings) = Puppet::with_ring(4);
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let mut batch = copier.batch();
    let mut start = || batch.copy(strings.memory(b"from"), strings.memory(b"to.."));
    let copies: Vec<_> = (0..10).map(|_| start()).collect();
    assert_eq!((strings.in_ring(), strings.doorbells()), (4, 1), "a full ring is begun with");
    strings.end_after_polls(0);
    drop(batch);
    for copy in copies {
        assert_eq!(block_on(copy).unwrap().status, Status::Success);
    }
}

#[test]
fn a_batch_that_is_forgotten_is_late() {
    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, SHORT).unwrap();
    let mut batch = copier.batch();
    drop(batch.copy(strings.memory(b"from"), strings.memory(b"to..")));
    std::mem::forget(batch);
    eventually("its memory is freed", || strings.dropped() == (2, 0));
    assert_eq!((strings.doorbells(), strings.terminations()), (0, 1));
}
