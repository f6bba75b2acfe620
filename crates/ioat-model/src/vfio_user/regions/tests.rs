//! Against a list of single addresses.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Change {
    Insert(u64, u64),
    Remove(u64, u64),
    Clear,
}

/// Addresses at both ends of the address space, a few of them, so that they meet.
fn range() -> impl Strategy<Value = (u64, u64)> {
    (prop_oneof![0_u64..24, (0_u64..24).prop_map(|back| u64::MAX - back)], 0_u64..8)
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => range().prop_map(|(address, size)| Change::Insert(address, size)),
        3 => range().prop_map(|(address, size)| Change::Remove(address, size)),
        1 => Just(Change::Clear),
    ]
}

/// Each mapped address with its region's name, start and size.
type Oracle = BTreeMap<u64, (usize, u64, u64)>;

fn addresses(address: u64, size: u64) -> Result<impl Iterator<Item = u64> + Clone, RangeError> {
    let end = u128::from(address) + u128::from(size);
    if size == 0 || end > 1 << 64 {
        return Err(RangeError::Invalid);
    }
    Ok((0..size).map(move |offset| address + offset))
}

fn insert(oracle: &mut Oracle, address: u64, size: u64, name: usize) -> Result<(), RangeError> {
    let all = addresses(address, size)?;
    if all.clone().any(|each| oracle.contains_key(&each)) {
        return Err(RangeError::Overlap);
    }
    oracle.extend(all.map(|each| (each, (name, address, size))));
    Ok(())
}

fn remove(oracle: &mut Oracle, address: u64, size: u64) -> Result<u64, RangeError> {
    let all: Vec<u64> = addresses(address, size)?.collect();
    let hit: Vec<(usize, u64, u64)> = all.iter().filter_map(|at| oracle.get(at).copied()).collect();
    let whole = |(_, start, len): &(usize, u64, u64)| {
        all.contains(start) && all.contains(&(start + (len - 1)))
    };
    if !hit.iter().all(whole) {
        return Err(RangeError::Cuts);
    }
    oracle.retain(|at, _| !all.contains(at));
    Ok(hit.len() as u64)
}

proptest! {
    #[test]
    fn as_if_each_address_were_listed(changes in proptest::collection::vec(change(), 1..60)) {
        let mut regions = Regions::default();
        let mut oracle = Oracle::new();
        for (name, change) in changes.into_iter().enumerate() {
            match change {
                Change::Insert(address, size) => prop_assert_eq!(
                    regions.insert(address, size, name),
                    insert(&mut oracle, address, size, name)
                ),
                Change::Remove(address, size) => prop_assert_eq!(
                    regions.remove(address, size),
                    remove(&mut oracle, address, size)
                ),
                Change::Clear => {
                    prop_assert_eq!(regions.clear(), oracle.len() as u64);
                    oracle.clear();
                }
            }
            let names: std::collections::BTreeSet<usize> =
                oracle.values().map(|(name, ..)| *name).collect();
            prop_assert_eq!(regions.len(), names.len());
            for address in (0..40).chain(u64::MAX - 40..=u64::MAX) {
                let found = regions.find(address).map(|(name, offset, left)| (*name, offset, left));
                let expected = oracle.get(&address).map(|(name, start, size)| {
                    (*name, address - start, size - (address - start))
                });
                prop_assert_eq!(found, expected);
            }
        }
    }
}
