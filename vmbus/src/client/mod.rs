//! A guest's end of the bus: contact, offers, channels and GPADLs.
