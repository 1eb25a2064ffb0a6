//! Names of the classes of well-known data sets, in the order of their numbers.
//!
//! ImageNet's names are lemmas of WordNet synsets, whose licence is in `labels/WORDNET-LICENSE`.

const IMAGENET: &str = include_str!("labels/imagenet.txt");
const COCO: &str = include_str!("labels/coco.txt");
const VOC: &str = include_str!("labels/voc.txt");
/// Places of the 80 COCO classes in the numbering of 91 that the annotations use.
const COCO_GAPS: [usize; 11] = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91];

/// The name of `class` among `classes`; `class N` where no known data set has so many.
pub fn name(class: usize, classes: usize) -> String {
    let known = match classes {
        1000 => line(IMAGENET, class),
        // A first class for "none of them", as TensorFlow's classifiers have.
        1001 => class.checked_sub(1).map_or(Some("background"), |class| line(IMAGENET, class)),
        80 => line(COCO, class),
        91 | 92 => annotated_coco(class),
        21 => line(VOC, class),
        10 => return class.to_string(),
        _ => None,
    };
    known.map_or_else(|| format!("class {class}"), str::to_owned)
}

fn line(list: &'static str, at: usize) -> Option<&'static str> {
    list.lines().nth(at)
}

/// COCO's class by its number in the annotations, 1 to 90.
fn annotated_coco(number: usize) -> Option<&'static str> {
    if COCO_GAPS.contains(&number) {
        return None;
    }
    let gaps = COCO_GAPS.iter().filter(|gap| **gap < number).count();
    line(COCO, number.checked_sub(1 + gaps)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_their_names() {
        let check = |class, classes, expected: &str| assert_eq!(name(class, classes), expected);
        check(0, 1000, "tench");
        check(985, 1000, "daisy");
        check(999, 1000, "toilet tissue");
        check(1, 1001, "tench");
        check(0, 80, "person");
        check(79, 80, "toothbrush");
        check(1, 91, "person");
        check(13, 91, "stop sign");
        check(90, 91, "toothbrush");
        check(12, 91, "class 12");
        check(15, 21, "person");
        check(7, 10, "7");
        check(3, 5, "class 3");
        check(1000, 1000, "class 1000");
        assert_eq!([IMAGENET, COCO, VOC].map(|list| list.lines().count()), [1000, 80, 21]);
    }
}
