//! Faults in areas of objects that give their pages one by one, as they are accessed.
#![forbid(unsafe_code)]

use super::map::{NoFilePage, Objects, Vma};
use super::pages::{Backing, PagesError, Sharing, UserHal, UserPages};
use super::terms::virt;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::gfp::Gfp;
use crate::hal::prot::Access;

/// Maps the page of the area's object that belongs at `addr`, where no translation is: with the area's access if it is shared,
/// read-only if it is private, so that a write copies the page. Returns whether it did; if not, another CPU was quicker, or a
/// guard page is there. The caller holds the areas of the space.
///
/// # Errors
///
/// [`NoFilePage`]: those of the object; nothing is there if what it gives is not its own to give.
#[cold]
pub(super) fn map_file_page<H: UserHal + Objects>(
    pages: &UserPages<H>,
    area: &Vma,
    addr: UserAddr,
    backing: &Backing,
    gfp: Gfp,
) -> Result<bool, NoFilePage> {
    let object = area.object().ok_or(NoFilePage::NothingThere)?;
    let at = addr.align_down(PAGE_SIZE);
    let index = at.get().checked_sub(area.start().get()).ok_or(NoFilePage::NothingThere)? >> PAGE_SHIFT;
    let index = area.page_offset().checked_add(index).ok_or(NoFilePage::NothingThere)?;
    let page = pages.hal().fault(object, index, gfp)?;
    let access = match backing.sharing {
        Sharing::Shared => backing.access,
        Sharing::Private => Access::ReadOnly,
    };
    match pages.do_insert_page(virt(at), page.page(), access, gfp) {
        Ok(()) => Ok(true),
        Err(PagesError::Occupied(_)) => Ok(false),
        Err(PagesError::OutOfMemory) => Err(NoFilePage::NoMemory),
        Err(_) => Err(NoFilePage::NothingThere),
    }
}
