# shellcheck shell=bash disable=SC2154 # push-lib.sh comes before
# Arguments: folder, manifest, and whose push this is: a word that all its lanes share. Obeys lines
# `word length rest...`, each followed by `length` bytes and a line `end`, and answers each with one line;
# `look` with more before it. What breaks off in the middle is not obeyed.
set -e -o pipefail
folder=$1 manifest=$2 parts=$2.parts push=${3-}
own=$manifest.lane.$$ lot=$manifest.lane.$$/lot
trap 'rm -rf "$own"' EXIT

# A line that died may be noticed here long after the next push began, so everything is taken whole aside,
# and nothing is done any more for a push after which another one has looked. While something is done, a
# lock keeps the next one waiting; nobody waits for bytes with the lock held.
locked() { # flock's option
    exec 9<> "$manifest.owner"
    flock "$1" 9 2> /dev/null || : # a machine without it has at least the word
}
release() { exec 9>&-; }

claim() {
    mkdir -p "${manifest%/*}"
    locked -x
    printf '%s\n' "$push" > "$manifest.owner"
    rm -rf "$manifest".lane.* # what lanes that were killed have left
    release
}

mine() { # or the end
    local owner=''
    locked -s
    read -r owner < "$manifest.owner" || :
    if [ "$owner" != "$push" ] || [ -e "$manifest.unpacked" ]; then
        echo 'a later push has taken over from this one' >&2
        echo 'hint: once the other has ended, run the same command again' >&2
        exit 75
    fi
    [ -d "$folder" ] || mkdir -p "$folder"
}

take() { # "$own" may be gone: then another push has begun
    [ -d "$own" ] || mkdir -p "$own"
    dd bs=128K iflag=fullblock,count_bytes count="$length" status=none > "$lot"
}

ours() { # what an archive, S3 or a command put there goes (dataset-lib.sh): this push knows nothing of it
    [ -f "$manifest.unpacked" ] || return 0
    printf 'nobody\n' > "$manifest.unpacked" # until all of it is gone
    rm -rf "$folder" "$folder.unpacking" "$folder".fetching*
    rm -f "$manifest".{digest,names,recent,unpacked}
}

look() { # digest, stat digest
    ours
    if same "$folder" "$manifest" "$1" "$2"; then printf 'same\n'; return; fi
    claim # before anything is listed: it must not change by an older push
    local at=$folder fresh=fresh
    while [ ! -d "$at" ]; do at=$(dirname "$at"); done
    # A link to nothing may lie there, even: it must be out of the way before anything comes.
    if [ -e "$manifest.names" ] || { [ -d "$folder" ] && [ -n "$(ls -A "$folder")" ]; }; then fresh=again; fi
    printf 'differs\n%s\n%s\n%s\n' "$(command -v rsync || :)" "$(df -Pk "$at" | awk 'NR == 2 { print $4 }')" \
        "$fresh $(sed -z -n '/^[fld]/p' "$manifest.names" 2> /dev/null | sort -zu | sha256sum)"
    {
        [ ! -d "$folder" ] || (cd "$folder" && find . -ignore_readdir_race -type f -printf '%s %Ts %m %P\0')
        [ ! -f "$manifest.recent" ] || cat "$manifest.recent"
        # A part that is gone leaves its record; only what lies there counts.
        for done in "$parts"/*.done; do
            part=${done%.done}
            [ ! -f "$part" ] || while read -r offset length; do
                printf 'part %s %s %s\0' "${part##*/}" "$offset" "$length"
            done < "$done"
        done
    } | gzip -1 | base64 -w 0
    printf '\n'
}

aside() { # what stands where something else must: what the machine made is kept
    local kept=$1.cloudtrain-kept number=1
    while [ -e "$kept" ] || [ -L "$kept" ]; do number=$((number + 1)) kept=$1.cloudtrain-kept-$number; done
    mv -T -- "$1" "$kept"
}

names() { # of files and links, from a list
    sed -z -n 's/^[fl]//p' "$1" | sort -zu
}

folders() { # of those and of empty folders, from a list, the topmost first
    sed -z -n -E '/^d/{ s/^d(.*)/\1\//p; d }; s/^[fl]//p' "$1" | sed -z 's/[^/]*$//' | uniq -z |
        sed -z -n -e ':up' -e '/\//!b' -e 's/\/[^/]*$//p' -e 'b up' | sort -zu
}

tidy() { # parts of what is not sent any more
    [ -d "$parts" ] || return 0
    sed -z -n 's/^p//p' "$own/new" | tr '\0' '\n' > "$own/kept"
    # One process for all: there may be as many parts as big files.
    find "$parts" -mindepth 1 -maxdepth 1 -printf '%f\n' | awk '
        listed { kept[$0]; next }
        { id = $0; sub(/\.done$/, "", id); if (!(id in kept)) print }
    ' listed=1 "$own/kept" listed=0 - | (cd "$parts" && xargs -r -d '\n' rm -f --)
}

begin() { # deletes what earlier pushes left and this one does not have
    rm -f "$manifest.digest"
    # Whole or not at all: half a list must delete nothing.
    gzip -dc > "$own/new"
    touch "$manifest.names"
    sort -zu "$manifest.names" > "$own/old"
    sort -zu "$own/new" | comm -z -23 "$own/old" - > "$own/gone"
    (
        cd "$folder"
        find . -ignore_readdir_race -mindepth 1 -type d -printf '%P\0' | sort -z > "$own/folders" || :
        # What the machine made a folder of since is its own.
        names "$own/gone" | comm -z -23 - "$own/folders" | xargs -0 -r rm -f --
        sed -z -n 's/^d//p' "$own/gone" | sort -zr |
            xargs -0 -r rmdir -p --ignore-fail-on-non-empty -- 2> /dev/null || :
        sed -z -n -E 's/^[fl](.*)\/[^\/]*$/\1/p' "$own/gone" | sort -zur |
            xargs -0 -r rmdir -p --ignore-fail-on-non-empty -- 2> /dev/null || :
        names "$own/new" | comm -z -12 - "$own/folders" |
            while IFS= read -r -d '' path; do [ ! -d "$path" ] || aside "$path"; done
        folders "$own/new" | while IFS= read -r -d '' path; do
            if [ -d "$path" ]; then continue; fi # a link to one, too
            if [ -e "$path" ] || [ -L "$path" ]; then aside "$path"; fi
        done
    )
    tidy
    # Should this push break, nobody knows which of them lies there: the ones before stay.
    sed -z -n 's/^r/recent /p' "$own/new" >> "$manifest.recent"
    mv "$own/new" "$manifest.names"
}

unpack() { # folders that are there stay as they are, and may be links
    tar -xf - -B -b 128 --no-same-owner --no-same-permissions --no-overwrite-dir --keep-directory-symlink \
        -C "$folder"
}

part() { # offset, size of the whole, id
    mkdir -p "$parts"
    truncate -s "$2" "$parts/$3"
    dd of="$parts/$3" bs=1M iflag=fullblock oflag=seek_bytes seek="$1" conv=notrunc,fdatasync status=none
}

place() { # records id, seconds, mode, path; a sign of life for every few hundred
    local number=0
    while IFS= read -r -d '' id && IFS= read -r -d '' seconds && IFS= read -r -d '' mode && IFS= read -r -d '' path; do
        chmod "$mode" "$parts/$id"
        touch -d "@$seconds" "$parts/$id"
        local target=$folder/$path
        [ -d "${target%/*}" ] || mkdir -p "${target%/*}" # dirname would lose a newline at its end
        mv -fT "$parts/$id" "$target"
        rm -f "$parts/$id.done"
        [ $((++number % 300)) -ne 0 ] || printf '...\n'
    done
}

drop() { # paths, before they are sent anew whatever their sizes and times say
    (cd "$folder" && xargs -0 -r rm -f --)
}

commit() { # digest, stat digest
    read -r count bytes hash <<< "$(arrived "$folder" "$manifest.names")"
    if [ "${hash%% *}" != "$2" ]; then printf 'mismatch %s %s\n' "$count" "$bytes"; return; fi
    sed -z -n 's/^r/recent /p' "$manifest.names" > "$manifest.recent.part"
    mv "$manifest.recent.part" "$manifest.recent"
    rm -rf "$parts" && printf '%s\n' "$1" > "$manifest.digest.part" &&
        mv "$manifest.digest.part" "$manifest.digest" && printf 'same %s %s\n' "$count" "$bytes"
}

while read -r word length one two three four; do
    answer=ok
    [ "$length" = 0 ] || take
    read -r last
    if [ "$last" = torn ]; then printf 'ok\n'; continue; fi # not what it was to be, says who sent it
    [ "$last" = end ]
    [ "$word" = look ] || mine
    case $word in
    look) look "$one" "$two";;
    begin) begin < "$lot";;
    tar) unpack < "$lot";;
    tar.gz) gzip -dc < "$lot" | unpack;;
    part) part "$one" "$two" "$three" < "$lot";;
    part.gz) gzip -dc < "$lot" | part "$one" "$two" "$three";;
    place) place < "$lot";;
    drop) drop < "$lot";;
    commit) answer=$(commit "$one" "$two");;
    *) echo "unknown: $word" >&2; exit 64;;
    esac
    case $word in part*) printf '%s %s\n' "$one" "$four" >> "$parts/$three.done";; esac
    release
    printf '%s\n' "$answer"
done
