//! Lists of a state that the cache has forgotten, from the store, which keeps more of the past.

use super::query::Answer;
use super::respond::store_status;
use super::{Server, feed};
use crate::cache::{Page, Query};
use crate::object::{Name, ResourceRef, Revision};
use crate::store::StoreError;

/// So many keys are read at a time.
const CHUNK: usize = 500;

/// As [`Cache::page`](crate::cache::Cache::page), but `None` if the store has forgotten the revision too.
///
/// # Errors
/// If the store does not answer.
pub(crate) async fn page(
    server: &Server,
    resource: ResourceRef,
    query: &Query,
    start: Option<&Name>,
    limit: usize,
    at: Revision,
) -> Answer<Option<Page>> {
    let all = resource.store_prefix(&server.config.prefix);
    let namespace = query.namespace.as_deref().filter(|it| resource.namespaced && !it.is_empty());
    let prefix = namespace.map_or_else(|| all.clone(), |it| format!("{all}{it}/"));
    let mut next = start.map(|it| format!("{all}{it}")).unwrap_or_default();
    let counts = query.labels.is_empty() && query.fields.is_empty();
    let (mut page, mut behind) = (Page { revision: at, ..Page::default() }, 0);
    loop {
        let found = match server.store.range(&prefix, &next, CHUNK, at).await {
            Ok(found) => found,
            Err(StoreError::Compacted { .. }) => return Ok(None),
            Err(error) => return Err(store_status(error)),
        };
        for entry in &found.entries {
            let full = page.objects.len() == limit;
            // Where all match, those behind the page are only counted.
            if full && counts {
                behind += 1;
                continue;
            }
            match feed::parse(server, &entry.key, &entry.value, entry.revision).filter(|it| query.matches(it)) {
                Some(_) if full => behind += 1,
                found => page.objects.extend(found),
            }
        }
        page.more = behind > 0;
        match found.entries.last() {
            Some(last) if found.more && (counts || !page.more) => next = format!("{}\0", last.key),
            _ => break,
        }
    }
    page.remaining = (counts || !page.more).then_some(behind);
    Ok(Some(page))
}
