Bb_sJ
×#=