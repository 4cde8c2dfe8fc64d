//! The root's end of the bus: offers, channels and GPADLs of one guest.
