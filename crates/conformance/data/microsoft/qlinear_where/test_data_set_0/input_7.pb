Bo_sJ
×#=