//! What every field of every kind is: its shape, how lists merge, what is required, its default. Strict decoding, defaulting, pruning,
//! strategic merge, server-side apply, OpenAPI and `kubectl explain` are written against this and nothing else.

/// A named type: an object with fields.
#[derive(Debug, PartialEq)]
pub struct Type {
    /// Such as `io.k8s.api.core.v1.PodSpec`.
    pub name: &'static str,
    /// In our own words, for `kubectl explain`.
    pub doc: &'static str,
    /// Ordered by name.
    pub fields: Vec<Field>,
}

/// A field of a [`Type`].
#[derive(Debug, PartialEq)]
pub struct Field {
    /// As it is written in JSON.
    pub name: &'static str,
    pub doc: &'static str,
    pub shape: Shape,
    pub required: bool,
    /// JSON text of the value that an absent field gets when its object is present.
    pub default: Option<&'static str>,
    /// The strings it may hold; empty if any.
    pub allowed: &'static [&'static str],
    /// `x-kubernetes-list-type` and `-map-keys`, or `x-kubernetes-map-type: atomic`: for server-side apply.
    pub merge: Merge,
    /// `x-kubernetes-patch-merge-key`: for strategic merge patches. A list without one is replaced, unless `patch_merge` is set.
    pub patch_key: Option<&'static str>,
    /// `x-kubernetes-patch-strategy: merge` on a list of scalars.
    pub patch_merge: bool,
    /// `x-kubernetes-patch-strategy: retainKeys`.
    pub retain_keys: bool,
}

/// What a value looks like.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    String,
    Boolean,
    Int32,
    Int64,
    Double,
    /// A number or a string, such as `100m` or `64Mi`.
    Quantity,
    IntOrString,
    /// RFC 3339, whole seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// Base64.
    Bytes,
    /// Any JSON (`RawExtension`, `FieldsV1`).
    Any,
    /// The name of a [`Type`].
    Object(&'static str),
    List(Box<Shape>),
    Map(Box<Shape>),
}

/// How two writers' values of a list or map come together under server-side apply.
#[derive(Clone, Debug, PartialEq)]
pub enum Merge {
    /// Lists are atomic, maps and objects granular.
    Default,
    Atomic,
    Set,
    /// A list of objects told apart by these fields.
    Map(&'static [&'static str]),
}
