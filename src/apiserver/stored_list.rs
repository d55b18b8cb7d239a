//! Lists of a state that the cache has forgotten, out of the store, which keeps more of the past.

use super::error::{Answer, store_status};
use super::{Server, feed};
use crate::cache::{Page, Query};
use crate::object::{Name, ResourceRef, Revision};
use crate::store::StoreError;

/// How many keys are read at a time.
const CHUNK: usize = 500;

/// As [`Cache::page`](crate::cache::Cache::page), but `None` if the store has compacted the revision, and without the number of objects
/// after the page: the store would have to read them.
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
    let mut page = Page { revision: at, ..Page::default() };
    loop {
        // One behind the page shows that there are more.
        let wanted = limit.saturating_sub(page.objects.len()).saturating_add(1);
        let chunk = if query.is_unselective() { CHUNK.min(wanted) } else { CHUNK };
        let found = match server.store.range(&prefix, &next, chunk, at).await {
            Ok(found) => found,
            Err(StoreError::Compacted { .. }) => return Ok(None),
            Err(error) => return Err(store_status(error)),
        };
        let objects = found.entries.iter().filter_map(|it| feed::parse(server, &it.key, &it.value, it.revision));
        page.objects.extend(objects.filter(|it| query.matches(it)).take(wanted));
        if page.objects.len() > limit {
            page.objects.truncate(limit);
            page.more = true;
            return Ok(Some(page));
        }
        match found.entries.last() {
            Some(last) if found.more => next = format!("{}\0", last.key),
            _ => break,
        }
    }
    page.remaining = Some(0);
    Ok(Some(page))
}
