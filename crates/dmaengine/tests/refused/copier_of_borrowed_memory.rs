//! A future may be forgotten while the engine writes: only memory that is owned goes in.

use dmaengine::Copier;

fn copy<'a>(copier: &Copier<Vec<u8>, &'a mut [u8]>, target: &'a mut [u8]) {
    drop(copier.copy(vec![1u8; 64], target));
}

fn main() {}
