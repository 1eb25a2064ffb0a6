//! Models split over several GGUF files (`model-00001-of-00003.gguf`).
//!
//! The first file carries the metadata; each carries `split.no`, `split.count` and `split.tensors.count`.

use super::Gguf;
use crate::{FormatError, Place, Problem};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// The names of all files of a split model, from the name of one of them, in order; none when it is not split.
pub fn shard_names(name: &str) -> Option<Vec<String>> {
    let (stem, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (prefix, number) = stem.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(number) || !digits(count) {
        return None;
    }
    let (number, all): (u32, u32) = (number.parse().ok()?, count.parse().ok()?);
    (1..=all)
        .contains(&number)
        .then(|| (1..=all).map(|n| format!("{prefix}-{n:05}-of-{count}.gguf")).collect())
}

pub(super) fn join(mut shards: Vec<Gguf>) -> Result<Gguf, FormatError> {
    let count = shards.iter().map(Gguf::split_count).max().unwrap_or(0);
    if count <= 1 && shards.len() == 1 {
        return Ok(shards.remove(0));
    }
    shards.sort_by_key(Gguf::split_number);
    check_numbers(&shards, count)?;
    let mut shards = shards.into_iter();
    let mut whole = shards.next().ok_or(Place::Model.has(Problem::MissingShard { number: 0, count: 1 }))?;
    shards.try_for_each(|shard| whole.absorb(shard))?;
    let (stated, found) = (whole.metadata.usize(TENSORS), whole.tensors.len());
    match stated {
        Some(stated) if stated != found => {
            Err(foreign(0, format!("{TENSORS} is {stated}, they hold {found}")))
        }
        _ => Ok(whole),
    }
}

/// Each of the `count` files must be there once; `shards` are in order.
fn check_numbers(shards: &[Gguf], count: u64) -> Result<(), FormatError> {
    let mut expected = 0;
    for shard in shards {
        let number = shard.split_number();
        if shard.split_count() != count {
            let found = shard.split_count();
            return Err(foreign(number, format!("its {COUNT} is {found}, that of others is {count}")));
        }
        if number < expected {
            return Err(foreign(number, format!("its {NUMBER} is that of another file")));
        }
        if number > expected {
            break;
        }
        expected += 1;
    }
    match expected {
        all if all == count => Ok(()),
        more if more > count => Err(foreign(more - 1, format!("its {NUMBER} is not below {count}"))),
        number => Err(Place::Model.has(Problem::MissingShard { number, count })),
    }
}

fn foreign(number: u64, why: String) -> FormatError {
    Place::Shard(number).has(Problem::ForeignShard(why))
}

impl Gguf {
    /// Which file of a split model this is, counted from zero.
    fn split_number(&self) -> u64 {
        self.metadata.usize(NUMBER).unwrap_or(0) as u64
    }

    /// How many files a split model has; zero when it is not split.
    fn split_count(&self) -> u64 {
        self.metadata.usize(COUNT).unwrap_or(0) as u64
    }

    fn absorb(&mut self, other: Self) -> Result<(), FormatError> {
        for tensor in other.tensors {
            let name = tensor.name().to_owned();
            if self.index.insert(name.clone(), self.tensors.len()).is_some() {
                return Err(Place::tensor(&name).has(Problem::Duplicate));
            }
            self.tensors.push(tensor);
        }
        Ok(())
    }
}
