//! A window of the last values, whenever they came.
//!
//! Why: blocks as long as the window, so that nothing is subtracted (invariant 3 of `window`).

use super::aggregate::Aggregate;

/// A window of the last values, each with weight 1.
///
/// Values come in blocks as long as the window; it is the end of the last block and the start of
/// this one, and nothing is subtracted.
#[derive(Debug, Clone)]
pub(in crate::alpha) struct EventWindow<A: Aggregate> {
    block: Box<[A::Value]>,
    /// For each place of the last block, the aggregate from there to its end.
    following: Box<[A]>,
    filled: usize,
    so_far: A,
    has_last_block: bool,
}

impl<A: Aggregate> EventWindow<A> {
    pub(in crate::alpha) fn new(count: u32) -> Self {
        Self {
            block: vec![A::NOTHING; count as usize].into_boxed_slice(),
            following: vec![A::EMPTY; count as usize].into_boxed_slice(),
            filled: 0,
            so_far: A::EMPTY,
            has_last_block: false,
        }
    }

    pub(in crate::alpha) fn reset(&mut self) {
        self.filled = 0;
        self.so_far = A::EMPTY;
        self.has_last_block = false;
    }

    pub(in crate::alpha) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.block) + size_of_val(&*self.following)
    }

    #[inline]
    pub(in crate::alpha) fn next(&mut self, value: A::Value) -> Option<A> {
        if !A::is_number(value) {
            return None;
        }
        if self.filled == self.block.len() {
            self.turn();
        }
        self.block[self.filled] = value;
        self.filled += 1;
        self.so_far = self.so_far.merged(A::of(value, 1.0));
        if self.filled == self.block.len() {
            return Some(self.so_far);
        }
        self.has_last_block
            .then(|| self.following[self.filled].merged(self.so_far))
    }

    fn turn(&mut self) {
        let mut all = A::EMPTY;
        for (slot, value) in self.following.iter_mut().zip(&self.block).rev() {
            all = A::of(*value, 1.0).merged(all);
            *slot = all;
        }
        self.filled = 0;
        self.so_far = A::EMPTY;
        self.has_last_block = true;
    }
}
