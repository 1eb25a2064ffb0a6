//! A step made of a plain function over bytes: for ops without a kernel of their own. Worker 0 runs it alone.
//!
//! Deliberately absent: element types and shapes, which the function knows.

use crate::Worker;
use crate::arena::Span;
use crate::step::{Access, Step, StepCtx};

/// The function: reads and writes whole spans.
pub type HostFn = dyn Fn(&mut HostIo<'_>) + Send + Sync;

/// The spans of a running host step.
pub struct HostIo<'a> {
    ctx: &'a StepCtx<'a>,
    reads: &'a [Span],
    writes: &'a [Span],
}

impl<'a> HostIo<'a> {
    /// The bytes of the `i`th span that is read.
    pub fn read(&self, i: usize) -> &'a [u8] {
        let bytes = self.ctx.bytes(&self.reads[i]);
        // SAFETY: the program checked that no span that this step writes overlaps it, and worker 0 is alone.
        unsafe { bytes.part(0..bytes.len()) }
    }

    /// The bytes of the `i`th span that is written.
    pub fn write(&mut self, i: usize) -> &mut [u8] {
        let bytes = self.ctx.bytes(&self.writes[i]);
        // SAFETY: the program checked that it overlaps no other span of this step, and the borrow of `self` keeps a
        // second part from being handed out.
        unsafe { bytes.part_mut(0..bytes.len()) }
    }
}

/// A step that calls `run` with these spans.
pub fn host(label: String, reads: Vec<Span>, writes: Vec<Span>, run: Box<HostFn>) -> Box<dyn Step> {
    Box::new(Host { label, reads, writes, run })
}

struct Host {
    label: String,
    reads: Vec<Span>,
    writes: Vec<Span>,
    run: Box<HostFn>,
}

// SAFETY: touches its declared spans only, through `HostIo`, on worker 0 only.
unsafe impl Step for Host {
    fn label(&self) -> String {
        self.label.clone()
    }

    fn spans(&self) -> Vec<Access> {
        let reads = self.reads.iter().map(|span| Access::Read(*span));
        reads.chain(self.writes.iter().map(|span| Access::Write(*span))).collect()
    }

    fn serial(&self, _: &[usize]) -> bool {
        true
    }

    unsafe fn run(&self, ctx: &StepCtx<'_>, worker: Worker<'_>) {
        if worker.index() == 0 {
            (self.run)(&mut HostIo { ctx, reads: &self.reads, writes: &self.writes });
        }
    }
}
