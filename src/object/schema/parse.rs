//! Reads the schema's text files. A line that begins in the first column opens a type; the lines below it, indented, are its fields:
//!
//! ```text
//! enum io.k8s.api.core.v1.Protocol SCTP|TCP|UDP
//! io.k8s.api.core.v1.Pod @v1                        a kind: its apiVersion
//! io.k8s.api.core.v1.ServicePort atomic -- Its documentation.
//!  name 1 string!*                                  protobuf number, shape, required, nullable
//!  selector 1/2 {string}                            in message 1, a map
//!  ports 6 [core.v1.ContainerPort] list=containerPort,protocol patch=containerPort default={} -- Documentation.
//! ```
//!
//! Type names below `io.k8s.api` omit that prefix; those of `meta/v1` and `apiextensions/v1` are shortened to `meta.v1` and
//! `apiextensions.v1`. `kept` marks an optional field without Go's `omitempty`, which is written even if zero; `off` marks a field of a
//! disabled feature. In the facts files a field has no number and no shape (`types.schema` has them), and the type `*` stands for every
//! type that says nothing about the field itself.

use std::collections::HashMap;

use super::{Field, Lookup, Merge, Shape, Type};

type Types = HashMap<&'static str, Type>;
type Enums = HashMap<&'static str, &'static [&'static str]>;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const API: &str = "io.k8s.api.";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.";

/// Parses all files and applies `facts` to `types`. The files are compiled in, so an error in them is a bug.
pub(super) fn parse(types: &'static str, facts: &[&'static str]) -> Types {
    let names: HashMap<&str, &'static str> = types
        .lines()
        .filter(|line| !line.starts_with([' ', '#']) && !line.starts_with("enum "))
        .filter_map(|line| line.split(' ').next())
        .map(|name| (short(name), name))
        .collect();
    let mut enums = Enums::new();
    let mut all = Types::with_capacity(names.len());
    let mut current: Option<Type> = None;
    for line in types.lines().filter(|line| !line.starts_with('#')) {
        if let Some(rest) = line.strip_prefix("enum ") {
            let (name, values) = rest.split_once(' ').unwrap_or((rest, ""));
            enums.insert(short(name), values.split('|').collect::<Vec<_>>().leak());
        } else if let Some(rest) = line.strip_prefix(' ') {
            current.as_mut().expect("a field follows its type").fields.push(field(rest, &names, &enums));
        } else {
            all.extend(current.replace(header(line)).map(|it| (it.name, it)));
        }
    }
    all.extend(current.map(|it| (it.name, it)));
    for facts in facts {
        lay_over(&mut all, &names, facts);
    }
    settle_atomic(&mut all);
    all
}

fn short(name: &str) -> &str {
    match name.strip_prefix(META) {
        Some(_) => &name[META.len() - "meta.v1.".len()..],
        None => name.strip_prefix(API).or_else(|| name.strip_prefix(EXTENSIONS)).unwrap_or(name),
    }
}

fn header(line: &'static str) -> Type {
    let (line, doc) = documented(line);
    let mut words = line.split(' ');
    let mut kind = Type {
        name: words.next().unwrap_or_default(),
        api_version: None,
        doc,
        atomic: false,
        fields: Vec::new(),
        lookup: Lookup::default(),
    };
    for word in words {
        match word.strip_prefix('@') {
            Some(api_version) => kind.api_version = Some(api_version),
            None => kind.atomic = word == "atomic",
        }
    }
    kind
}

fn documented(line: &'static str) -> (&'static str, &'static str) {
    line.split_once(" -- ").unwrap_or((line, ""))
}

fn field(line: &'static str, names: &HashMap<&str, &'static str>, enums: &Enums) -> Field {
    let (line, doc) = documented(line);
    let mut words = line.split(' ');
    let name = words.next().expect("a name");
    let tag = tag(words.next().expect("a number"));
    let shape = words.next().expect("a shape");
    let nullable = shape.ends_with('*');
    let shape = shape.trim_end_matches('*');
    let required = shape.ends_with('!');
    let mut allowed: &'static [&'static str] = &[];
    let shape = self::shape(shape.trim_end_matches('!'), names, enums, &mut allowed);
    let mut field = Field {
        name,
        tag,
        doc,
        shape,
        required,
        nullable,
        omitempty: !required,
        default: None,
        declared_default: None,
        allowed,
        merge: Merge::Default,
        patch_key: None,
        patch_merge: false,
        retain_keys: false,
        off: false,
    };
    words.for_each(|word| attribute(&mut field, word));
    field.declared_default = field.default;
    field
}

fn tag(text: &str) -> &'static [u32] {
    text.split('/').filter_map(|number| number.parse().ok()).filter(|number| *number != 0).collect::<Vec<_>>().leak()
}

fn shape(text: &'static str, names: &HashMap<&str, &'static str>, enums: &Enums, allowed: &mut &'static [&'static str]) -> Shape {
    if let Some(inner) = text.strip_prefix('[') {
        return Shape::List(Box::new(shape(inner.trim_end_matches(']'), names, enums, allowed)));
    }
    if let Some(inner) = text.strip_prefix('{') {
        return Shape::Map(Box::new(shape(&inner[..inner.len() - 1], names, enums, allowed)));
    }
    match text {
        "string" => Shape::String,
        "bool" => Shape::Boolean,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "double" => Shape::Double,
        "quantity" => Shape::Quantity,
        "intorstring" => Shape::IntOrString,
        "time" => Shape::Time,
        "microtime" => Shape::MicroTime,
        "bytes" => Shape::Bytes,
        "any" => Shape::Any,
        name => match (enums.get(name), names.get(name)) {
            (Some(values), _) => {
                *allowed = values;
                Shape::String
            }
            (None, Some(name)) => Shape::Object(name),
            (None, None) => unreachable!("the schema refers to {name}, which it does not have"),
        },
    }
}

fn attribute(field: &mut Field, word: &'static str) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match (key, value) {
        ("default", value) => field.default = Some(value),
        ("list" | "map", "atomic") => field.merge = Merge::Atomic,
        ("map", "granular") => field.merge = Merge::Granular,
        ("list", "set") => field.merge = Merge::Set,
        ("list", keys) => field.merge = Merge::Map(keys.split(',').collect::<Vec<_>>().leak()),
        ("patch", key) => {
            field.patch_merge = true;
            field.patch_key = (!key.is_empty()).then_some(key);
        }
        ("retain", _) => field.retain_keys = true,
        ("kept", _) => field.omitempty = false,
        ("off", _) => field.off = true,
        ("nullable", _) => field.nullable = true,
        _ => unreachable!("the schema says {word:?} of {}", field.name),
    }
}

fn lay_over(all: &mut Types, names: &HashMap<&str, &'static str>, facts: &'static str) {
    let mut general: HashMap<&str, &'static str> = HashMap::new();
    let mut current = "";
    for line in facts.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (words, doc) = documented(line);
        if !line.starts_with(' ') {
            current = words;
            if current != "*" {
                all.get_mut(names[words]).expect("named").doc = doc;
            }
            continue;
        }
        let mut words = words.trim_start().split(' ');
        let name = words.next().unwrap_or_default();
        if current == "*" {
            general.insert(name, doc);
            continue;
        }
        let kind = all.get_mut(names[current]).expect("named");
        let Some(field) = kind.fields.iter_mut().find(|field| field.name == name) else { unreachable!("{current} has no field {name}") };
        if !doc.is_empty() {
            field.doc = doc;
        }
        words.for_each(|word| attribute(field, word));
    }
    for field in all.values_mut().flat_map(|it| &mut it.fields).filter(|field| field.doc.is_empty()) {
        field.doc = general.get(field.name).copied().unwrap_or_default();
    }
}

/// A field that holds an object of an atomic type is atomic itself, unless it says otherwise.
fn settle_atomic(all: &mut Types) {
    let atomic: Vec<&str> = all.values().filter(|it| it.atomic).map(|it| it.name).collect();
    for field in all.values_mut().flat_map(|it| &mut it.fields) {
        if field.merge == Merge::Default && matches!(field.shape, Shape::Object(name) if atomic.contains(&name)) {
            field.merge = Merge::Atomic;
        }
    }
}
