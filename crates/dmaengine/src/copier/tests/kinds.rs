//! What a copier does, and how.

use super::*;
use crate::{Capabilities, Flags, OperationKind};

fn over_cpu() -> Copier<Vec<u8>, Vec<u8>> {
    Copier::new(CpuDevice::new(1).request_channel(0).unwrap(), TIMEOUT).unwrap()
}

#[test]
fn fills_repeat_their_pattern() {
    let done = over_cpu().fill(0x0807_0605_0403_0201, vec![0; 11]).wait().unwrap();
    assert_eq!((done.status, done.bytes, done.source), (Status::Success, 11, ()));
    assert_eq!(done.target, [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3]);
}

#[test]
fn lists_come_back_with_their_pieces() {
    let sources = vec![b"scat".to_vec(), b"tered".to_vec()];
    let done = block_on(over_cpu().copy_sg(sources, vec![vec![0; 2], vec![0; 7]])).unwrap();
    assert_eq!((done.status, done.bytes), (Status::Success, 9));
    assert_eq!(done.source, [b"scat".to_vec(), b"tered".to_vec()]);
    assert_eq!(done.target, [b"sc".to_vec(), b"attered".to_vec()]);
}

#[test]
fn flags_reach_the_engine() {
    let (channel, strings) = Puppet::channel();
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let memory = |bytes: &[u8]| strings.memory(bytes);
    let options = CopyOptions { flags: Flags::FENCE, timeout: Some(TIMEOUT) };
    let _copying = copier.copy_with(memory(b"from"), memory(b"to.."), options);
    let _filling = copier.fill_with(7, memory(b"to.."), Flags::TO_CACHE);
    let (sources, targets) = (vec![memory(b"from")], vec![memory(b"to..")]);
    let _gathering = copier.copy_sg_with(sources, targets, Flags::TO_MEMORY);
    assert_eq!(strings.flags(), [Flags::FENCE, Flags::TO_CACHE, Flags::TO_MEMORY]);
    strings.end_after_polls(0);
}

#[test]
fn what_a_channel_cannot_do_comes_back_with_its_memory() {
    let (channel, strings) = Puppet::with_capabilities(Capabilities::MEMCPY);
    let copier = Memories::new(channel, TIMEOUT).unwrap();
    let memory = |bytes: &[u8]| strings.memory(bytes);
    let fenced = copier.copy_with(memory(b"from"), memory(b"to.."), Flags::FENCE).wait();
    let Err(CopyError::Refused(fenced)) = fenced else { panic!("{fenced:?}") };
    assert_eq!(
        (fenced.error, fenced.source.as_ref()),
        (SubmitError::UnsupportedFence, &b"from"[..])
    );
    let fill = copier.fill(7, memory(b"to..")).wait();
    let Err(CopyError::Refused(fill)) = fill else { panic!("{fill:?}") };
    let operation = OperationKind::Memset;
    assert_eq!(fill.error, SubmitError::Unsupported { operation });
    assert_eq!((fill.source, fill.target.as_ref()), ((), &b"to.."[..]));
    let lists = copier.copy_sg(vec![memory(b"from")], vec![memory(b"to..")]).wait();
    let Err(CopyError::Refused(lists)) = lists else { panic!("{lists:?}") };
    let operation = OperationKind::MemcpySg;
    assert_eq!(lists.error, SubmitError::Unsupported { operation });
    assert_eq!((lists.source.len(), lists.target.len(), strings.doorbells()), (1, 1, 0));
}
