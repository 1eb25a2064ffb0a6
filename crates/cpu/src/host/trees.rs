//! `TreeEnsemble`, with features and sums in f64.

use kinglet_graph::ops::{Test, TreeEnsemble, TreeNode};

use super::{Call, HostOp, Outcome, Outs, store};

impl HostOp for TreeEnsemble {
    fn host(&self, call: &Call<'_>, outs: &mut dyn Outs) -> Outcome {
        let x = call.view(0)?;
        let width =
            x.shape.last().copied().filter(|n| *n > 0).ok_or("takes features in the last dimension")?;
        let mut made = Vec::new();
        for row in x.f64s()?.chunks_exact(width) {
            let start = made.len();
            made.extend_from_slice(&self.base);
            for root in &self.roots {
                add(self, *root, row, &mut made[start..])?;
            }
        }
        store(outs, 0, &made)
    }
}

/// Adds what one tree says.
fn add(op: &TreeEnsemble, root: usize, row: &[f64], outputs: &mut [f64]) -> Outcome {
    let mut at = root;
    // No way down is longer than there are nodes.
    for _ in 0..op.nodes.len() {
        match &op.nodes[at] {
            TreeNode::Leaf(adds) => {
                adds.iter().for_each(|(output, value)| outputs[*output] += value);
                return Ok(());
            }
            TreeNode::Branch { feature, test, value, yes, no, missing_yes } => {
                let x = *row.get(*feature).ok_or("a tree asks about a feature that does not exist")?;
                let goes = if x.is_nan() { *missing_yes } else { holds(*test, x, *value) };
                at = if goes { *yes } else { *no };
            }
        }
    }
    Err("a tree leads back to itself".into())
}

fn holds(test: Test, x: f64, value: f64) -> bool {
    match test {
        Test::LessOrEqual => x <= value,
        Test::Less => x < value,
        Test::GreaterOrEqual => x >= value,
        Test::Greater => x > value,
        Test::Equal => x == value,
        Test::NotEqual => x != value,
    }
}
