//! What a Core ML classifier says in words: the class that is most probable, and the probability of each.
//!
//! A graph makes numbers; the text and the dictionary that the model's interface has besides them are made here.

use kinglet_formats::coreml::{FeatureKind, Interface};
use kinglet_tensor::Tensor;

use super::model::{GraphModel, floats};

/// The outputs of a classifier that are no tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Name of the output that tells the class, usually `classLabel`.
    pub output: String,
    /// The most probable class; the first of those that are equally probable.
    pub label: Label,
    /// Name of the output that is a dictionary; the tensor of this name holds its values in the order of the classes.
    pub dictionary: String,
    /// Each class and its probability, in the order of the file.
    pub probabilities: Vec<(String, f32)>,
}

/// A class as the model's interface tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// By its name.
    Text(String),
    /// By a number of its own.
    Number(i64),
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
        }
    }
}

impl GraphModel {
    /// What these outputs of a run say in words, when the model is a classifier with names for its classes.
    pub fn verdict(&self, outputs: &[Tensor]) -> Option<Verdict> {
        of(self.files.interface.as_ref()?, self.files.classes.as_ref()?, outputs)
    }
}

fn of(interface: &Interface, classes: &[String], outputs: &[Tensor]) -> Option<Verdict> {
    let told = interface.predicted.as_ref()?;
    let named = |tensor: &&Tensor| interface.probabilities.as_deref() == Some(tensor.name());
    let fits = |tensor: &&Tensor| tensor.elements() == classes.len();
    let tensor = outputs.iter().find(named).filter(fits).or_else(|| outputs.iter().find(fits))?;
    let values = floats(tensor)?.data;
    let best = (0..values.len()).reduce(|best, i| if values[i] > values[best] { i } else { best })?;
    let number = interface.outputs.iter().any(|f| f.name == *told && f.kind == FeatureKind::Int64);
    let label = classes[best].parse().ok().filter(|_| number).map(Label::Number);
    Some(Verdict {
        output: told.clone(),
        label: label.unwrap_or_else(|| Label::Text(classes[best].clone())),
        dictionary: tensor.name().to_owned(),
        probabilities: classes.iter().cloned().zip(values).collect(),
    })
}

#[cfg(test)]
mod tests {
    use kinglet_formats::coreml::Feature;
    use kinglet_tensor::DType;

    use super::*;

    fn interface(kind: FeatureKind) -> Interface {
        let feature = Feature { name: "classLabel".into(), summary: String::new(), kind, optional: false };
        let (predicted, probabilities) = (Some("classLabel".into()), Some("odds".into()));
        Interface { outputs: vec![feature], predicted, probabilities, ..Interface::default() }
    }

    fn tensor(name: &str, values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Tensor::new(name, DType::F32, vec![1, values.len()], bytes.into()).expect("sizes agree")
    }

    #[test]
    fn the_most_probable_class_is_told_as_the_interface_has_it() {
        let classes = ["7".to_owned(), "11".to_owned(), "13".to_owned()];
        let outputs = [tensor("other", &[9.0]), tensor("odds", &[0.2, 0.4, 0.4])];
        let check = |kind: FeatureKind, label: Label| {
            let found = of(&interface(kind), &classes, &outputs).expect("a classifier");
            assert_eq!(
                (found.label, found.output.as_str(), found.dictionary.as_str()),
                (label, "classLabel", "odds")
            );
            assert_eq!(found.probabilities[2], ("13".into(), 0.4));
        };
        check(FeatureKind::Text, Label::Text("11".into()));
        check(FeatureKind::Int64, Label::Number(11));
    }

    #[test]
    fn models_without_classes_or_probabilities_say_nothing() {
        let classes = ["a".to_owned(), "b".to_owned()];
        let with = interface(FeatureKind::Text);
        assert_eq!(of(&with, &classes, &[tensor("odds", &[0.1, 0.2, 0.3])]), None);
        assert_eq!(
            of(&Interface { predicted: None, ..with }, &classes, &[tensor("odds", &[0.1, 0.9])]),
            None
        );
    }
}
