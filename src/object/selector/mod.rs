//! Label and field selectors: the query parameters `labelSelector` and `fieldSelector`, and `metav1.LabelSelector` in specs.

mod field;
mod label;
mod parse;

pub use field::{FieldSelector, FieldTerm};
pub use label::{LabelSelector, Operator, Requirement};
