//! The reference kernel's image. Everything it does is in `quarry::kernel`.
#![no_std]
#![no_main]

use quarry as _;
