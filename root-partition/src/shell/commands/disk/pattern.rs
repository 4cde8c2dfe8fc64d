//! What a writing check writes: bytes that differ from sector to sector, so that a sector that went astray is seen.

/// Fills `bytes`, whole sectors from `sector` on.
pub(super) fn fill(sector: u64, sector_bytes: usize, bytes: &mut [u8]) {
    for (index, part) in bytes.chunks_mut(sector_bytes).enumerate() {
        // SplitMix64, begun anew in each sector.
        let mut state = (sector + index as u64).wrapping_mul(0xd134_2543_de82_ef95);
        for word in part.chunks_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut value = state;
            value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            value ^= value >> 31;
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_is_the_same_wherever_a_piece_begins_and_unlike_its_neighbours() {
        let mut many = [0; 2048];
        fill(7, 512, &mut many);
        let mut one = [0; 512];
        fill(9, 512, &mut one);
        assert_eq!(many[1024..1536], one);
        assert_ne!(many[..512], many[512..1024]);
    }
}
