//! Outputs that do not fit the task.

/// Outputs that do not fit the task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "fields are named by the message")]
pub enum TaskError {
    #[error(
        "{task} expects {expected}, the model's output has the shape {found:?}; run it without a task to get the raw tensors"
    )]
    Shape { task: &'static str, expected: &'static str, found: Vec<usize> },
    #[error("{task} expects {expected} values for the shape {shape:?}, there are {found}")]
    Length { task: &'static str, shape: Vec<usize>, expected: usize, found: usize },
    #[error("the model's dictionary has {dictionary} characters, its output has {classes} classes")]
    Dictionary { dictionary: usize, classes: usize },
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
}

/// Checks that an array holds as many values as its shape says.
pub(super) fn whole(task: &'static str, array: &crate::image::Array) -> Result<(), TaskError> {
    let expected = array.shape.iter().try_fold(1usize, |n, dim| n.checked_mul(*dim)).unwrap_or(usize::MAX);
    let (shape, found) = (array.shape.clone(), array.data.len());
    if expected == found { Ok(()) } else { Err(TaskError::Length { task, shape, expected, found }) }
}
